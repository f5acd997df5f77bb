#include "kinds.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <utility>

namespace edgevit {
namespace {

using namespace std::string_view_literals;
using Magic = std::pair<std::string_view, std::string_view>;

constexpr std::array kReadSuffixes = {".jpg"sv, ".jpeg"sv, ".jfif"sv, ".jpe"sv, ".png"sv, ".webp"sv,
                                      ".bmp"sv, ".dib"sv,  ".ppm"sv,  ".pgm"sv, ".pnm"sv};
constexpr std::array kOtherSuffixes = {
    ".tif"sv, ".tiff"sv, ".gif"sv, ".avif"sv, ".avifs"sv, ".heic"sv, ".heif"sv, ".jp2"sv, ".j2k"sv,
    ".jpx"sv, ".jxl"sv,  ".jxr"sv, ".ico"sv,  ".cur"sv,   ".tga"sv,  ".psd"sv,  ".svg"sv, ".svgz"sv,
    ".pbm"sv, ".pfm"sv,  ".pam"sv, ".pcx"sv,  ".exr"sv,   ".hdr"sv,  ".dds"sv,  ".dng"sv, ".cr2"sv,
    ".cr3"sv, ".nef"sv,  ".arw"sv, ".orf"sv,  ".rw2"sv,   ".raf"sv,  ".apng"sv, ".mpo"sv, ".jng"sv,
    ".mng"sv, ".qoi"sv,  ".xbm"sv, ".xpm"sv,  ".icns"sv,  ".eps"sv,  ".wmf"sv,  ".emf"sv};
constexpr std::array kReadKinds = {"JPEG"sv, "PNG"sv, "WebP"sv, "BMP"sv, "PPM"sv};
constexpr std::array kHidden = {"__macosx"sv, "thumbs.db"sv, "desktop.ini"sv};
constexpr std::array<Magic, 12> kPictures = {{{"\xff\xd8\xff"sv, "JPEG"},
                                              {"\x89PNG\r\n\x1a\n"sv, "PNG"},
                                              {"GIF8"sv, "GIF"},
                                              {"II*\0"sv, "TIFF"},
                                              {"MM\0*"sv, "TIFF"},
                                              {"II+\0"sv, "TIFF"},
                                              {"MM\0+"sv, "TIFF"},
                                              {"\0\0\0\x0cjP  "sv, "JPEG 2000"},
                                              {"\xff\x4f\xff\x51"sv, "JPEG 2000"},
                                              {"\xff\x0a"sv, "JPEG XL"},
                                              {"\0\0\0\x0cJXL "sv, "JPEG XL"},
                                              {"8BPS"sv, "Photoshop file"}}};
constexpr std::array<Magic, 12> kOthers = {
    {{"PK\x03\x04"sv, "zip archive"},
     {"PK\x05\x06"sv, "zip archive"},
     {"\x1f\x8b"sv, "gzip file"},
     {"BZh"sv, "bzip2 file"},
     {"\xfd\x37zXZ\0"sv, "xz file"},
     {"\x28\xb5\x2f\xfd"sv, "zstd file"},
     {"7z\xbc\xaf\x27\x1c"sv, "7z archive"},
     {"Rar!"sv, "rar archive"},
     {"%PDF"sv, "PDF"},
     {"\0\x05\x16\x07"sv, "AppleDouble file of macOS"},
     {"\x7f\x45LF"sv, "program"},
     {"version https://git-lfs"sv, "pointer of Git LFS, not the file itself"}}};
constexpr std::array<Magic, 7> kBrands = {{{"avif"sv, "AVIF"},
                                           {"avis"sv, "AVIF"},
                                           {"heic"sv, "HEIC"},
                                           {"heix"sv, "HEIC"},
                                           {"mif1"sv, "HEIC"},
                                           {"msf1"sv, "HEIC"},
                                           {"hevc"sv, "HEIC"}}};
constexpr std::array<Magic, 5> kTexts = {{{"<!doctype html"sv, "web page (HTML)"},
                                          {"<html"sv, "web page (HTML)"},
                                          {"<svg"sv, "SVG"},
                                          {"<?xml"sv, "XML file"},
                                          {"{"sv, "JSON file"}}};

// Of ASCII alone: a suffix of other letters is no suffix that is known.
std::string lower(std::string_view text) {
    std::string result(text);
    std::transform(result.begin(), result.end(), result.begin(),
                   [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
    return result;
}

bool starts_with(std::string_view text, std::string_view start) {
    return text.substr(0, start.size()) == start;
}

template <typename List>
bool holds(const List& list, std::string_view text) {
    return std::find(list.begin(), list.end(), text) != list.end();
}

template <typename List>
std::string_view named(const List& magics, std::string_view head) {
    for (const auto& [magic, name] : magics) {
        if (starts_with(head, magic)) {
            return name;
        }
    }
    return {};
}

// The length of the UTF-8 sequence that `text` begins with; 0 where it is none.
std::size_t sequence_length(std::string_view text) {
    const auto byte = [&](std::size_t i) { return static_cast<std::uint8_t>(text[i]); };
    const std::uint8_t first = byte(0);
    const std::size_t length = first < 0x80   ? 1
                               : first < 0xc2 ? 0
                               : first < 0xe0 ? 2
                               : first < 0xf0 ? 3
                               : first < 0xf5 ? 4
                                              : 0;
    if (length > text.size()) {
        return 0;
    }
    for (std::size_t i = 1; i < length; ++i) {
        if ((byte(i) & 0xc0) != 0x80) {
            return 0;
        }
    }
    const bool is_wrong = length > 2 && ((first == 0xe0 && byte(1) < 0xa0) ||   // overlong
                                         (first == 0xed && byte(1) >= 0xa0) ||  // surrogates
                                         (first == 0xf0 && byte(1) < 0x90) ||   // overlong
                                         (first == 0xf4 && byte(1) >= 0x90));   // beyond Unicode
    return is_wrong ? 0 : length;
}

}  // namespace

bool is_hidden(std::string_view name) {
    return starts_with(name, ".") || holds(kHidden, lower(name));
}

std::string suffix_of(std::string_view name) {
    const std::size_t dot = name.rfind('.');
    if (dot == std::string_view::npos || dot == 0 || dot + 1 == name.size()) {
        return {};
    }
    return lower(name.substr(dot));
}

bool is_read_suffix(std::string_view suffix) { return holds(kReadSuffixes, suffix); }

bool is_other_picture_suffix(std::string_view suffix) { return holds(kOtherSuffixes, suffix); }

std::string kind_of(ByteView bytes) {
    const std::string_view head(reinterpret_cast<const char*>(bytes.data),
                                std::min(bytes.size, kHeadBytes));
    const auto at = [&](std::size_t start, std::size_t count) {
        return start < head.size() ? head.substr(start, count) : std::string_view();
    };
    if (at(0, 4) == "RIFF" && at(8, 4) == "WEBP") {
        return "WebP";
    }
    if (at(0, 2) == "BM" && at(15, 3) == "\0\0\0"sv) {
        return "BMP";
    }
    if (head.size() > 2 && head[0] == 'P' && (head[1] == '5' || head[1] == '6') &&
        " \t\n\r#"sv.find(head[2]) != std::string_view::npos) {
        return "PPM";
    }
    if (at(4, 4) == "ftyp") {
        if (const std::string_view name = named(kBrands, at(8, 4)); !name.empty()) {
            return std::string(name);
        }
    }
    for (const std::string_view name : {named(kPictures, head), named(kOthers, head)}) {
        if (!name.empty()) {
            return std::string(name);
        }
    }
    std::string_view text = head;
    if (starts_with(text, "\xef\xbb\xbf")) {
        text.remove_prefix(3);
    }
    text.remove_prefix(std::min(text.find_first_not_of(" \t\r\n"), text.size()));
    return std::string(named(kTexts, lower(text)));
}

bool is_read_kind(std::string_view kind) { return holds(kReadKinds, kind); }

bool is_picture(ByteView head) {
    const std::string kind = kind_of(head);
    const auto is_kind = [&](const Magic& magic) { return magic.second == kind; };
    return is_read_kind(kind) || kind == "SVG" ||
           std::any_of(kPictures.begin(), kPictures.end(), is_kind) ||
           std::any_of(kBrands.begin(), kBrands.end(), is_kind);
}

std::string printable(std::string_view raw) {
    constexpr std::string_view kDigits = "0123456789abcdef";
    std::string text;
    while (!raw.empty()) {
        const std::size_t length = sequence_length(raw);
        const auto first = static_cast<std::uint8_t>(raw[0]);
        const bool is_control =
            (length == 1 && ((first < 0x20 && first != '\t') || first == 0x7f)) ||
            (length == 2 && first == 0xc2 && static_cast<std::uint8_t>(raw[1]) < 0xa0);
        const std::string_view part = raw.substr(0, std::max<std::size_t>(length, 1));
        if (length > 0 && !is_control) {
            text += part;
        } else {
            for (const char c : part) {
                const auto byte = static_cast<std::uint8_t>(c);
                text += {'\\', 'x', kDigits[byte >> 4], kDigits[byte & 15]};
            }
        }
        raw.remove_prefix(part.size());
    }
    return text;
}

}  // namespace edgevit
