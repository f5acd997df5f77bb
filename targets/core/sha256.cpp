#include "core/sha256.h"

#include <algorithm>
#include <cstring>
#include <system_error>
#include <vector>

#include "core/bytes.h"
#include "core/errors.h"
#include "core/limits.h"

namespace edgevit {
namespace {

namespace fs = std::filesystem;

// The first 32 bits of the fractional parts of the cube roots of the first 64 primes.
constexpr std::array<std::uint32_t, 64> kRound = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

constexpr std::uint32_t rotate(std::uint32_t value, unsigned bits) {
    return (value >> bits) | (value << (32 - bits));
}

// The relative '/'-paths of the files below a folder, sorted by their bytes.
std::vector<std::string> files_below(const fs::path& folder) {
    std::vector<std::string> files;
    std::size_t entries = 0;
    std::error_code error;
    fs::recursive_directory_iterator walk(folder, error);
    for (; !error && walk != fs::recursive_directory_iterator(); walk.increment(error)) {
        const std::string name = walk->path().string();
        if (++entries > kMaxTreeEntries) {
            throw InputError(folder.string() + ": holds more than " +
                             std::to_string(kMaxTreeEntries) + " files and folders");
        }
        if (walk->path().filename().string().find('\n') != std::string::npos) {
            throw InputError(name + ": has a line break in its name");
        }
        const fs::file_status status = walk->symlink_status(error);
        if (error) {
            break;
        }
        if (fs::is_regular_file(status)) {
            files.push_back(walk->path().lexically_relative(folder).generic_string());
        } else if (!fs::is_directory(status)) {
            throw InputError(name + ": a link or special file cannot be part of an artifact");
        } else if (walk.depth() >= kMaxTreeDepth) {
            throw InputError(name + ": lies more than " + std::to_string(kMaxTreeDepth) +
                             " folders below " + folder.string());
        }
    }
    if (error) {
        throw InputError(folder.string() + ": cannot read: " + error.message());
    }
    std::sort(files.begin(), files.end());
    return files;
}

}  // namespace

void Sha256::compress(const std::uint8_t* block) {
    std::array<std::uint32_t, 64> w{};
    for (std::size_t i = 0; i < 16; ++i) {
        w[i] = static_cast<std::uint32_t>(block[4 * i]) << 24 |
               static_cast<std::uint32_t>(block[4 * i + 1]) << 16 |
               static_cast<std::uint32_t>(block[4 * i + 2]) << 8 | block[4 * i + 3];
    }
    for (std::size_t i = 16; i < 64; ++i) {
        const std::uint32_t s0 = rotate(w[i - 15], 7) ^ rotate(w[i - 15], 18) ^ (w[i - 15] >> 3);
        const std::uint32_t s1 = rotate(w[i - 2], 17) ^ rotate(w[i - 2], 19) ^ (w[i - 2] >> 10);
        w[i] = w[i - 16] + s0 + w[i - 7] + s1;
    }
    auto [a, b, c, d, e, f, g, h] = state_;
    for (std::size_t i = 0; i < 64; ++i) {
        const std::uint32_t s1 = rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25);
        const std::uint32_t t1 = h + s1 + ((e & f) ^ (~e & g)) + kRound[i] + w[i];
        const std::uint32_t s0 = rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22);
        const std::uint32_t t2 = s0 + ((a & b) ^ (a & c) ^ (b & c));
        h = g, g = f, f = e, e = d + t1, d = c, c = b, b = a, a = t1 + t2;
    }
    const std::array<std::uint32_t, 8> sums = {a, b, c, d, e, f, g, h};
    std::transform(state_.begin(), state_.end(), sums.begin(), state_.begin(),
                   [](std::uint32_t x, std::uint32_t y) { return x + y; });
}

void Sha256::update(const void* data, std::size_t size_bytes) {
    const auto* bytes = static_cast<const std::uint8_t*>(data);
    total_bytes_ += size_bytes;
    while (size_bytes > 0) {
        if (filled_ == 0 && size_bytes >= block_.size()) {
            compress(bytes);
            bytes += block_.size(), size_bytes -= block_.size();
            continue;
        }
        const std::size_t take = std::min(size_bytes, block_.size() - filled_);
        std::memcpy(block_.data() + filled_, bytes, take);
        bytes += take, size_bytes -= take, filled_ += take;
        if (filled_ == block_.size()) {
            compress(block_.data());
            filled_ = 0;
        }
    }
}

std::string Sha256::finish() {
    const std::uint64_t total_bits = total_bytes_ * 8;
    // One bit, then zeros, so that the length fills the last eight bytes of a block.
    const std::array<std::uint8_t, 64> padding = {0x80};
    update(padding.data(), filled_ < 56 ? 56 - filled_ : 120 - filled_);
    std::array<std::uint8_t, 8> length{};
    for (unsigned i = 0; i < 8; ++i) {
        length[i] = static_cast<std::uint8_t>(total_bits >> (56 - 8 * i));
    }
    update(length.data(), length.size());
    constexpr char digits[] = "0123456789abcdef";
    std::string hex;
    for (const std::uint32_t word : state_) {
        for (int shift = 28; shift >= 0; shift -= 4) {
            hex += digits[(word >> shift) & 15];
        }
    }
    return hex;
}

std::string sha256_hex(std::string_view text) {
    Sha256 hash;
    hash.update(text);
    return hash.finish();
}

std::string sha256_file(const std::filesystem::path& path) {
    const File file = open_for_reading(path);
    Sha256 hash;
    Bytes buffer(1 << 16);
    for (;;) {
        const std::size_t count = std::fread(buffer.data(), 1, buffer.size(), file.get());
        hash.update(buffer.data(), count);
        if (count < buffer.size()) {
            break;
        }
    }
    if (std::ferror(file.get()) != 0) {
        throw InputError(path.string() + ": cannot read");
    }
    return hash.finish();
}

std::string sha256_tree(const fs::path& folder) {
    Sha256 hash;
    for (const std::string& file : files_below(folder)) {
        hash.update(sha256_file(folder / file) + "  " + file + "\n");
    }
    return hash.finish();
}

bool is_sha256(std::string_view text) {
    return text.size() == 64 &&
           text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

}  // namespace edgevit
