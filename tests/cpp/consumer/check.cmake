# Installs BUILT into WORK, builds the application of SOURCE against it with find_package and runs
# it, under EMULATOR if one is given: cmake -DBUILT=... -DWORK=... -DSOURCE=... -DVERSION=... -DNM=...
# [-DTOOLCHAIN=... -DEMULATOR=...] -P check.cmake
function(run output)
  execute_process(COMMAND ${ARGN} RESULT_VARIABLE code OUTPUT_VARIABLE text ERROR_VARIABLE text)
  if(NOT code EQUAL 0)
    message(FATAL_ERROR "`${ARGN}` ended with ${code}:\n${text}")
  endif()
  set(${output} "${text}" PARENT_SCOPE)
endfunction()

file(REMOVE_RECURSE ${WORK})
run(ignored ${CMAKE_COMMAND} --install ${BUILT} --prefix ${WORK}/prefix)
# Moved, for a package has to work wherever it was unpacked.
file(RENAME ${WORK}/prefix ${WORK}/moved)
if(TOOLCHAIN)
  set(cross -DCMAKE_TOOLCHAIN_FILE=${TOOLCHAIN} -DCMAKE_FIND_ROOT_PATH_MODE_PACKAGE=BOTH)
endif()
run(ignored ${CMAKE_COMMAND} -S ${SOURCE} -B ${WORK}/build -DCMAKE_PREFIX_PATH=${WORK}/moved
  -DEDGEVIT_WANTED=${VERSION} ${cross})
run(ignored ${CMAKE_COMMAND} --build ${WORK}/build)
run(shared ${EMULATOR} ${WORK}/build/with_edgevit ${SOURCE}/artifact)
run(static ${EMULATOR} ${WORK}/build/with_static ${SOURCE}/artifact)
if(NOT shared MATCHES "^edgevit ${VERSION} null\n[0-9]+ c[0-9]+ " OR NOT shared STREQUAL static)
  message(FATAL_ERROR "the application says\n${shared}and linked to the static library\n${static}")
endif()
execute_process(COMMAND ${EMULATOR} ${WORK}/build/with_edgevit ${WORK}/none RESULT_VARIABLE code
  ERROR_VARIABLE text)
if(NOT code EQUAL 2 OR NOT text MATCHES "EDGEVIT_BAD_INPUT: .*no such artifact folder")
  message(FATAL_ERROR "a missing folder ends with ${code}: ${text}")
endif()

# Nothing but the C API can be seen from outside.
if(CMAKE_HOST_SYSTEM_NAME STREQUAL "Linux")
  file(GLOB_RECURSE library ${WORK}/moved/*/libedgevit.so.${VERSION})
  run(symbols ${NM} --dynamic --defined-only --format=posix ${library})
  string(REGEX MATCHALL "[^\n]+" lines "${symbols}")
  list(FILTER lines EXCLUDE REGEX "^(edgevit_[a-z_]+@@|EDGEVIT_0)")
  if(lines OR NOT symbols MATCHES "edgevit_classify")
    message(FATAL_ERROR "libedgevit.so shows ${lines}")
  endif()
endif()
