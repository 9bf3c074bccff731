// In place of libFuzzer, where there is no Clang: changes seeds at random, without looking at what
// is covered. Usage: TARGET -max_total_time=SECONDS -seed=N FOLDER
#include "targets.h"

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dirent.h>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <sys/stat.h>
#include <vector>

using Bytes = std::vector<uint8_t>;

static std::mt19937_64 rng;
static size_t below(size_t n) { return n ? rng() % n : 0; }

static void change(Bytes &input, const std::vector<Bytes> &seeds) {
    static const uint8_t odd[] = {0, 1, 2, 3, 7, 8, 15, 16, 17, 127, 128, 254, 255};
    for (size_t left = 1 + below(1 + below(8)); left--;) {
        const size_t at = below(input.size());
        switch (below(8)) {
        case 0: if (!input.empty()) input[at] ^= uint8_t(1 << below(8)); break;
        case 1: if (!input.empty()) input[at] = odd[below(sizeof odd)]; break;
        case 2: if (!input.empty()) input[at] = uint8_t(rng()); break;
        case 3: input.resize(at); break;
        case 4: input.insert(input.begin() + at, 1 + below(16), uint8_t(rng())); break;
        case 5: // leave a part out
            input.erase(input.begin() + at, input.begin() + at + below(std::min<size_t>(64, input.size() - at)));
            break;
        case 6: { // repeat a part elsewhere
            const size_t from = below(input.size()), count = below(std::min<size_t>(64, input.size() - from));
            const Bytes part(input.begin() + from, input.begin() + from + count);
            input.insert(input.begin() + at, part.begin(), part.end());
            break;
        }
        default: { // go on as another seed does
            const Bytes &other = seeds[below(seeds.size())];
            const size_t from = below(other.size());
            input.resize(at);
            input.insert(input.end(), other.begin() + from, other.end());
        }
        }
    }
    if (input.size() > 1 << 16) input.resize(1 << 16);
}

int main(int argc, char **argv) {
    double seconds = 60;
    std::string folder;
    for (int i = 1; i < argc; i++) {
        if (!strncmp(argv[i], "-max_total_time=", 16)) seconds = atof(argv[i] + 16);
        else if (!strncmp(argv[i], "-seed=", 6)) rng.seed(strtoull(argv[i] + 6, nullptr, 10));
        else folder = argv[i];
    }
    std::vector<Bytes> seeds;
    struct stat info;
    if (!folder.empty() && !stat(folder.c_str(), &info) && S_ISREG(info.st_mode)) { // one, to repeat it
        std::ifstream file(folder, std::ios::binary);
        const Bytes input{std::istreambuf_iterator<char>(file), {}};
        return LLVMFuzzerTestOneInput(input.data(), input.size());
    }
    if (DIR *listed = folder.empty() ? nullptr : opendir(folder.c_str())) {
        while (const dirent *entry = readdir(listed)) {
            std::ifstream file(folder + "/" + entry->d_name, std::ios::binary);
            if (entry->d_name[0] != '.') seeds.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
        }
        closedir(listed);
    }
    if (seeds.empty()) seeds.push_back(Bytes(256));
    const auto begun = std::chrono::steady_clock::now();
    uint64_t runs = 0;
    for (;; runs++) {
        if (runs % 64 == 0) {
            const std::chrono::duration<double> gone = std::chrono::steady_clock::now() - begun;
            if (gone.count() > seconds) break;
        }
        Bytes input = seeds[runs < seeds.size() ? runs : below(seeds.size())];
        if (runs >= seeds.size()) change(input, seeds);
        // Kept before it is tried, for whoever has to repeat it; the memory is not the file's.
        if (const char *kept = getenv("FUZZ_KEEP")) {
            std::ofstream file(kept, std::ios::binary);
            file.write(reinterpret_cast<const char *>(input.data()), input.size());
        }
        LLVMFuzzerTestOneInput(input.data(), input.size());
    }
    printf("%llu inputs in %.0f s\n", (unsigned long long)runs, seconds);
    return 0;
}
