#include "npu_files.h"

#include <algorithm>
#ifdef __ANDROID__
#include <sys/system_properties.h>
#endif

#include "core/errors.h"

namespace edgevit::npu {

namespace fs = std::filesystem;

namespace {

constexpr const char* kPortable = "portable.tflite";

std::string file_name(const std::string& manufacturer, const std::string& soc) {
    return manufacturer + "_" + soc + ".tflite";
}

}  // namespace

std::vector<std::string> socs_of(const Manifest& manifest) {
    const auto option = manifest.options.find("soc");
    std::vector<std::string> socs;
    std::string rest = option == manifest.options.end() ? "" : option->second + ",";
    for (std::size_t comma = 0; (comma = rest.find(',')) != std::string::npos;) {
        socs.push_back(rest.substr(0, comma));
        rest.erase(0, comma + 1);
    }
    if (socs.empty() || std::find(socs.begin(), socs.end(), "") != socs.end()) {
        throw InputError((manifest.folder / "manifest.json").string() +
                         ": options.soc must name the SoCs that the artifact is compiled for, as "
                         "in \"SM8750,SM8650\": compile it again");
    }
    return socs;
}

std::string listed(const std::vector<std::string>& socs) {
    std::string text;
    for (const std::string& soc : socs) {
        text += (text.empty() ? "" : ", ") + soc;
    }
    return text;
}

fs::path program_for(const Manifest& manifest, const std::string& manufacturer,
                     const std::string& soc) {
    const std::vector<std::string> socs = socs_of(manifest);
    const fs::path folder = manifest.artifact_path();
    std::vector<std::string> known = {kPortable};
    for (const std::string& each : socs) {
        known.push_back(file_name(manufacturer, each));
    }
    for (const fs::directory_entry& item : fs::directory_iterator(folder)) {
        const std::string name = item.path().filename().string();
        if (std::find(known.begin(), known.end(), name) == known.end()) {
            throw InputError(item.path().string() + ": is none of the artifact's files: the " +
                             "manifest names the SoCs " + listed(socs) + " of " + manufacturer +
                             "; a program runs on the SoC that it was compiled for alone, so "
                             "compile the artifact again for all that are wanted");
        }
    }
    const fs::path program = folder / file_name(manufacturer, soc);
    if (!fs::is_regular_file(program)) {
        throw InputError(program.string() +
                         ": is missing, and the manifest names that SoC: "
                         "compile the artifact again");
    }
    return program;
}

std::string soc_of_this_machine() {
#ifdef __ANDROID__
    char value[PROP_VALUE_MAX] = {};
    const int length = __system_property_get("ro.soc.model", value);
    return length > 0 ? std::string(value, static_cast<std::size_t>(length)) : "";
#else
    return "";
#endif
}

}  // namespace edgevit::npu
