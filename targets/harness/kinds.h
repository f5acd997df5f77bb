// What a file is, told by its name and by its first bytes; the lists of edgevit/data/kinds.py.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "core/bytes.h"

namespace edgevit {

inline constexpr std::size_t kHeadBytes = 64;  // what kind_of() looks at

// Names that begin with a dot, __MACOSX, Thumbs.db, desktop.ini: passed over in silence.
bool is_hidden(std::string_view name);

// Of a file's name, in lower case with its dot; empty where there is none.
std::string suffix_of(std::string_view name);

// By suffix: an image that is read, or another picture.
bool is_read_suffix(std::string_view suffix);
bool is_other_picture_suffix(std::string_view suffix);

// By its first bytes: "JPEG", "zip archive", ...; empty if unknown.
std::string kind_of(ByteView head);
bool is_read_kind(std::string_view kind);
bool is_picture(ByteView head);

// A name as text that a terminal and a list of lines can hold: bytes that are no UTF-8, and control
// characters but the tab, become \xNN.
std::string printable(std::string_view raw);

}  // namespace edgevit
