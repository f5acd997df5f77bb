#include "dataset.h"

#include <sys/stat.h>

#include <doctest/doctest.h>

#include "support.h"
#include "tar.h"

using namespace edgevit;
using namespace edgevit::test;

namespace {

const std::vector<std::string> kLabels = {"c0", "c1", "c2"};

std::string refusal(const fs::path& path) {
    return message_of<InputError>([&] { Dataset::open(path, kLabels); });
}

std::string paths_of(const Dataset& dataset) {
    std::string text;
    for (const Dataset::Entry& entry : dataset.entries()) {
        text += entry.path + ":" + std::to_string(entry.label) + " ";
    }
    return text;
}

// The files of an archive: "path offset size", in the order of their paths.
void add_files(const TarNode& folder, const std::string& prefix, std::vector<std::string>& files) {
    for (const auto& [name, node] : folder.members) {
        if (node->kind == TarNode::Kind::folder) {
            add_files(*node, prefix + name + "/", files);
        } else if (node->kind == TarNode::Kind::file) {
            files.push_back(prefix + name + " " + std::to_string(node->offset_bytes) + " " +
                            std::to_string(node->size_bytes));
        }
    }
}

std::string pax_record(const std::string& key, const std::string& value) {
    const std::string body = " " + key + "=" + value + "\n";
    std::size_t length = body.size() + 1;
    while (std::to_string(length).size() + body.size() != length) {
        ++length;
    }
    return std::to_string(length) + body;
}

}  // namespace

TEST_CASE("without labels folders mean nothing") {
    const TemporaryFolder folder;
    write_text(folder / "train" / "deep" / "a.jpg", "123");
    write_text(folder / "train" / "b.png", "1");
    const Dataset inside = Dataset::open(folder.path(), {});
    CHECK(paths_of(inside) == "train/b.png:0 train/deep/a.jpg:0 ");
    write_text(folder / "c.png", "12");
    CHECK(paths_of(Dataset::open(folder.path(), {}, {"train/b.png"})) ==
          "c.png:0 train/deep/a.jpg:0 ");
    const TemporaryFolder empty;
    const std::string refused = message_of<InputError>([&] { Dataset::open(empty.path(), {}); });
    CHECK(contains(refused, "no JPEG or PNG image found"));
    CHECK(!contains(refused, "CLASS/"));
}

TEST_CASE("a folder is listed by path, other files and letter case of suffixes aside") {
    const TemporaryFolder folder;
    write_text(folder / "c1" / "b.png", "12345");
    write_text(folder / "c1" / "B.JPEG", "1");
    write_text(folder / "c0" / "deep" / "a.jpg", "123");
    write_text(folder / "c0" / "notes.txt", "no image");
    write_text(folder / "c0" / ".jpg", "no suffix");
    const Dataset dataset = Dataset::open(folder.path(), kLabels);
    CHECK(paths_of(dataset) == "c0/deep/a.jpg:0 c1/B.JPEG:1 c1/b.png:1 ");
    CHECK(dataset.sha256() == sha256_hex("c0/deep/a.jpg\t3\nc1/B.JPEG\t1\nc1/b.png\t5\n"));
    Bytes bytes;
    dataset.read(dataset.entries()[2], bytes);
    CHECK(std::string(bytes.begin(), bytes.end()) == "12345");
}

TEST_CASE("one folder around the class folders is dropped, in a folder and in a tar") {
    const TemporaryFolder folder;
    write_text(folder / "set" / "top" / "c2" / "a.jpg", "abc");
    write_text(folder / "t.tar",
               tar_member("top/", "", '5') + tar_member("./top/c2/a.jpg", "abc") + tar_end());
    for (const char* name : {"set", "t.tar"}) {
        const Dataset dataset = Dataset::open(folder / name, kLabels);
        CHECK(paths_of(dataset) == "c2/a.jpg:2 ");
        Bytes bytes;
        dataset.read(dataset.entries()[0], bytes);
        CHECK(std::string(bytes.begin(), bytes.end()) == "abc");
    }
}

TEST_CASE("a data set that cannot be used says why") {
    const TemporaryFolder folder;
    CHECK(contains(refusal(folder / "missing"), "no such image folder or tar"));
    CHECK(contains(refusal(folder.path()), "no JPEG or PNG image found"));
    write_text(folder / "c0" / "a.jpg", "x");
    write_text(folder / "c9" / "a.jpg", "x");
    CHECK(contains(refusal(folder.path()), "'c9' is not one of the artifact's 3 labels"));
    fs::remove_all(folder / "c9");
    write_text(folder / "loose.jpg", "x");
    CHECK(contains(refusal(folder.path()), "loose.jpg is in no class folder"));
    write_text(folder / "empty.tar", tar_end());
    CHECK(contains(refusal(folder / "empty.tar"), "no JPEG or PNG image found"));
}

TEST_CASE("an image that shrank or is too large is refused by name") {
    const TemporaryFolder folder;
    write_text(folder / "c0" / "a.jpg", "12345");
    const Dataset dataset = Dataset::open(folder.path(), kLabels);
    write_text(folder / "c0" / "a.jpg", "1");
    Bytes bytes;
    CHECK(contains(message_of<InputError>([&] { dataset.read(dataset.entries()[0], bytes); }),
                   "c0/a.jpg ends"));
    Dataset::Entry large = dataset.entries()[0];
    large.size_bytes = 1ULL << 40;
    CHECK(contains(message_of<InputError>([&] { dataset.read(large, bytes); }), "over 64 MiB"));
}

TEST_CASE("a tar's long names come from GNU, pax and ustar fields") {
    const TemporaryFolder folder;
    const std::string gnu = "c0/" + std::string(150, 'g') + ".jpg";
    const std::string pax = "c1/" + std::string(300, 'p') + ".jpg";
    const std::string data = "abc";
    std::string with_prefix = tar_member("z.jpg", data);
    with_prefix.replace(345, 2, "c2");
    unsigned sum = 0;
    with_prefix.replace(148, 8, "        ");
    for (std::size_t i = 0; i < 512; ++i) {
        sum += static_cast<unsigned char>(with_prefix[i]);
    }
    char octal[8];
    std::snprintf(octal, sizeof octal, "%06o", sum);
    with_prefix.replace(148, 7, std::string(octal, 7));
    // The size in the header after a pax size is wrong on purpose: the pax one holds.
    std::string sized = tar_member(pax, data);
    const std::string archive =
        tar_member("global", pax_record("comment", "x"), 'g') +
        tar_member("././@LongLink", gnu + '\0', 'L') + tar_member(gnu, data) +
        tar_member("PaxHeader", pax_record("path", pax) + pax_record("size", "2"), 'x') + sized +
        tar_member("c0/link.jpg", "", '2') + with_prefix + tar_end();
    write_text(folder / "t.tar", archive);
    std::vector<std::string> files;
    add_files(*read_tar(folder / "t.tar"), "", files);
    const auto place = [&](const std::string& name, std::size_t nth) {
        std::size_t at = 0;
        for (std::size_t i = 0; i <= nth; ++i) {
            at = archive.find(data, i == 0 ? 0 : at + 1);
        }
        return name + " " + std::to_string(at);
    };
    REQUIRE(files.size() == 3);
    CHECK(files[0] == place(gnu, 0) + " 3");
    CHECK(files[1] == place(pax, 1) + " 2");
    CHECK(files[2] == place("c2/z.jpg", 2) + " 3");
}

TEST_CASE("links in a tar lead to its own files, and nowhere else") {
    const TemporaryFolder folder;
    const auto link = [](const std::string& name, const std::string& target, char type) {
        return tar_member("PaxHeader", pax_record("linkpath", target), 'x') +
               tar_member(name, "", type);
    };
    write_text(folder / "t.tar",
               tar_member("c0/a.jpg", "abc") + link("c1/hard.jpg", "c0/a.jpg", '1') +
                   link("c1/soft.jpg", "../c0/./a.jpg", '2') + link("c2", "c0", '2') +
                   link("c0/self", ".", '2') + link("c0/out.jpg", "../../etc/x.jpg", '2') +
                   link("c0/root.jpg", "/etc/x.jpg", '2') + link("c0/gone.jpg", "c9/x.jpg", '1') +
                   link("c0/loop.jpg", "loop.jpg", '2') + tar_member("c0/fifo.jpg", "", '6') +
                   tar_member("../c0/up.jpg", "abc") + tar_member("/c0/top.jpg", "abc") +
                   tar_member("c0/._a.jpg", "junk") + tar_member("__MACOSX/c0/b.jpg", "junk") +
                   tar_end());
    const Dataset dataset = Dataset::open(folder / "t.tar", kLabels);
    CHECK(paths_of(dataset) ==
          "c0/a.jpg:0 c0/top.jpg:0 c1/hard.jpg:1 c1/soft.jpg:1 c2/a.jpg:2 c2/top.jpg:2 ");
    Bytes bytes;
    for (const Dataset::Entry& entry : dataset.entries()) {
        dataset.read(entry, bytes);
        CHECK(std::string(bytes.begin(), bytes.end()) == "abc");
    }
    CHECK(contains(dataset.notice(), "dangling link"));
    CHECK(contains(dataset.notice(), "2 special file"));
    CHECK(contains(dataset.notice(), "1 name that leads out of the tar"));
}

TEST_CASE("what is left out of a folder is named in one line, and links are followed") {
    const TemporaryFolder folder;
    write_text(folder / "set" / "c0" / "a.jpg", "x");
    write_text(folder / "set" / "c0" / "b.TIF", "x");
    write_text(folder / "set" / "c0" / "c.tif", "x");
    write_text(folder / "set" / "c0" / "d\x1b[31m.gif", "x");
    write_text(folder / "set" / "c0" / "Thumbs.db", "x");
    write_text(folder / "set" / "c0" / "photo", "\xff\xd8\xff\xe0");
    write_text(folder / "elsewhere" / "b.png", "y");
    fs::create_directory_symlink(folder / "elsewhere", folder / "set" / "c1");
    fs::create_symlink("nowhere", folder / "set" / "c0" / "e.jpg");
    fs::create_directory_symlink("..", folder / "set" / "c0" / "round");
    REQUIRE(::mkfifo((folder / "set" / "c0" / "f.jpg").c_str(), 0600) == 0);
    const Dataset dataset = Dataset::open(folder / "set", kLabels);
    CHECK(paths_of(dataset) == "c0/a.jpg:0 c1/b.png:1 ");
    CHECK(contains(dataset.notice(),
                   " were left out: 2 .tif, 1 .gif, 1 dangling link, 1 file without a suffix, "
                   "1 link to a folder around it, 1 special file (first: c0/b.TIF)"));
    CHECK_FALSE(contains(dataset.notice(), "\x1b"));
    CHECK(paths_of(Dataset::open(folder / "set", kLabels, {"c0/a.jpg"})) == "c1/b.png:1 ");
    CHECK(contains(refusal(folder / "set" / "c0" / "f.jpg"), "neither a folder nor a file"));
}

TEST_CASE("the labels tell a class folder with folders from a folder around the classes") {
    const TemporaryFolder folder;
    write_text(folder / "one" / "c1" / "old" / "a.jpg", "x");
    write_text(folder / "one" / "c1" / "new" / "b.jpg", "x");
    CHECK(paths_of(Dataset::open(folder / "one", kLabels)) == "c1/new/b.jpg:1 c1/old/a.jpg:1 ");
    write_text(folder / "root" / "train" / "c1" / "a.jpg", "x");
    write_text(folder / "root" / "val" / "c1" / "a.jpg", "x");
    CHECK(contains(refusal(folder / "root"), "holds train and val, which are parts of a set"));
    write_text(folder / "set.zip", "PK\x03\x04");
    CHECK(contains(refusal(folder / "set.zip"), "is a zip archive"));
    write_text(folder / "bmw.tar", tar_member("BMW/c1/a.jpg", "x") + tar_end());
    CHECK(paths_of(Dataset::open(folder / "bmw.tar", kLabels)) == "c1/a.jpg:1 ");
    write_text(folder / "set.tgz", "\x1f\x8b\x08");
    CHECK(contains(refusal(folder / "set.tgz"), "tar -xzf"));
}

TEST_CASE("a damaged tar is refused and the place named") {
    const TemporaryFolder folder;
    const auto refused = [&](const std::string& bytes) {
        write_text(folder / "t.tar", bytes);
        return message_of<InputError>([&] { read_tar(folder / "t.tar"); });
    };
    const std::string member = tar_member("c0/a.jpg", std::string(600, 'x'));
    CHECK(refused(member + tar_end()) == "");
    CHECK(contains(refused("not a tar"), "at byte 0"));
    CHECK(contains(refused(std::string(2048, 'x')), "bad header checksum at byte 0"));
    CHECK(contains(refused(member.substr(0, 700)), "reaches past the end"));
    CHECK(contains(refused(member), "end marker is missing"));
    CHECK(contains(refused(member + std::string(512, 'x') + tar_end()),
                   "bad header checksum at byte 1536"));
    CHECK(contains(refused(tar_member("x", "nonsense", 'x') + tar_end()), "bad pax header"));
    CHECK(contains(refused(tar_member("x", "99999 a=b\n", 'x') + tar_end()), "bad pax header"));
    CHECK(contains(refused(tar_member("x", pax_record("size", "-1"), 'x') + member + tar_end()),
                   "bad pax size"));
    CHECK(contains(refused(tar_member("x", pax_record("size", "99999"), 'x') + member + tar_end()),
                   "reaches past the end"));
    CHECK(contains(refused(tar_member("l", std::string(2 << 20, 'n'), 'L') + tar_end()),
                   "extended header of"));
}

TEST_CASE("a tar with any one byte changed is read or refused, never worse") {
    const TemporaryFolder folder;
    std::string archive = tar_member("x", pax_record("path", "c0/b.jpg"), 'x') +
                          tar_member("c0/a.jpg", "abc") + tar_end();
    for (std::size_t at = 0; at < 2048; ++at) {
        const char before = archive[at];
        archive[at] = static_cast<char>(~before);
        write_text(folder / "t.tar", archive);
        message_of<InputError>([&] { read_tar(folder / "t.tar"); });
        archive[at] = before;
    }
}
