# edgevit_check_tensorrt(FOLDER): ends with what to do where the TensorRT whose headers lie in FOLDER
# is older than 10, whose API lacks what the back-end calls.
function(edgevit_check_tensorrt folder)
  set(major "")
  if(EXISTS ${folder}/NvInferVersion.h)
    file(STRINGS ${folder}/NvInferVersion.h lines REGEX "#define (NV_TENSORRT_MAJOR|TRT_MAJOR_ENTERPRISE) ")
    foreach(line IN LISTS lines)
      if(line MATCHES "_[A-Z]+ +([0-9]+)")
        set(major ${CMAKE_MATCH_1})
      endif()
    endforeach()
  endif()
  if(major STREQUAL "")
    message(FATAL_ERROR "TensorRT's version cannot be read from ${folder}/NvInferVersion.h: "
      "install libnvinfer-dev, or name another folder with -DTENSORRT_ROOT=DIR")
  elseif(major LESS 10)
    message(FATAL_ERROR "TensorRT ${major} in ${folder} is too old: 10 or newer is needed. JetPack 6.1 "
      "or later brings it (6.0 has 8.6); elsewhere name its folder with -DTENSORRT_ROOT=DIR")
  endif()
endfunction()
