/* SPDX-License-Identifier: BSD-3-Clause */
/* harness.cc -- the C interface on Google Benchmark. See harness.h. */
#include "bench/harness.h"

#include <benchmark/benchmark.h>

#include <cctype>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>
#include <mutex>
#include <string>
#include <unistd.h>
#include <utility>
#include <vector>

namespace
{

/* One registered case and the state that its threads share during a run. */
struct Case {
    bench_case c;
    std::string name;
    std::mutex mutex;
    unsigned inside = 0; /* threads between entering and leaving the run; guarded by mutex */
    void *shared = nullptr;
};

std::vector<std::pair<std::string, std::string>> options; /* --name=value that Google Benchmark does not know */
std::string directory;

} // namespace

struct bench {
    benchmark::State &state;
    Case &of;
};

namespace
{

/* The first thread to enter sets up: the others are held back by the mutex, then by the start barrier in bench_more. The stop
 * barrier lets nobody leave before all are done, so the last thread to leave may tear down. */
void run_case(benchmark::State &state, Case &of)
{
    bench b{state, of};
    {
        std::lock_guard<std::mutex> guard(of.mutex);
        if (of.inside++ == 0)
            of.shared = of.c.setup != nullptr ? of.c.setup(&of.c) : nullptr;
    }
    of.c.run(&b);
    std::lock_guard<std::mutex> guard(of.mutex);
    if (--of.inside == 0 && of.c.teardown != nullptr)
        of.c.teardown(&b, of.shared);
}

void make_directory()
{
    std::string path = std::string(bench_option("dir", "/dev/shm")) + "/pallocator-bench-XXXXXX";
    std::vector<char> writable(path.begin(), path.end());
    writable.push_back('\0');
    if (mkdtemp(writable.data()) == nullptr) {
        std::perror(path.c_str());
        std::exit(2);
    }
    directory = writable.data();
}

/* Take our own options out of argv; what is left belongs to Google Benchmark. */
void take_options(int *argc, char **argv)
{
    int kept = 1;
    for (int i = 1; i < *argc; i++) {
        char *equals = std::strchr(argv[i], '=');
        bool ours = std::strncmp(argv[i], "--", 2) == 0 && equals != nullptr &&
                    std::strncmp(argv[i], "--benchmark_", 12) != 0 && std::strncmp(argv[i], "--v=", 4) != 0;
        if (ours)
            options.emplace_back(std::string(argv[i] + 2, equals), equals + 1);
        else
            argv[kept++] = argv[i];
    }
    argv[kept] = nullptr;
    *argc = kept;
}

std::vector<std::unique_ptr<Case>> cases;

} // namespace

extern "C" {

void bench_register(const struct bench_case *c)
{
    cases.push_back(std::make_unique<Case>());
    Case *of = cases.back().get();
    of->c = *c;
    of->name = c->name;
    of->c.name = of->name.c_str();
    if (of->c.threads == 0)
        of->c.threads = 1;
    auto *registered =
        benchmark::RegisterBenchmark(of->name.c_str(), [of](benchmark::State &state) { run_case(state, *of); });
    registered->Threads(static_cast<int>(of->c.threads))->UseRealTime()->Unit(benchmark::kNanosecond);
    if (c->fixed_ops != 0)
        registered->Iterations(static_cast<benchmark::IterationCount>(c->fixed_ops));
}

bool bench_more(struct bench *b, uint64_t n)
{
    return b->state.KeepRunningBatch(static_cast<benchmark::IterationCount>(n));
}

void bench_pause(struct bench *b)
{
    b->state.PauseTiming();
}

void bench_resume(struct bench *b)
{
    b->state.ResumeTiming();
}

void *bench_shared(const struct bench *b)
{
    return b->of.shared;
}

const struct bench_case *bench_case_of(const struct bench *b)
{
    return &b->of.c;
}

uint64_t bench_argument(const struct bench *b)
{
    return b->of.c.argument;
}

unsigned bench_thread(const struct bench *b)
{
    return static_cast<unsigned>(b->state.thread_index());
}

unsigned bench_threads(const struct bench *b)
{
    return static_cast<unsigned>(b->state.threads());
}

void bench_count_per_op(struct bench *b, const char *name, double amount)
{
    benchmark::Counter &counter = b->state.counters[name];
    counter.flags = benchmark::Counter::kAvgIterations;
    counter.value += amount;
}

void bench_value(struct bench *b, const char *name, double value)
{
    b->state.counters[name] = benchmark::Counter(value);
}

void bench_fail(struct bench *b, const char *why)
{
    b->state.SkipWithError(why);
}

const char *bench_directory(void)
{
    return directory.c_str();
}

const char *bench_option(const char *name, const char *fallback)
{
    for (const auto &[key, value] : options)
        if (key == name)
            return value.c_str();
    std::string variable = std::string("BENCH_") + name;
    for (char &c : variable)
        c = c == '-' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
    const char *set = std::getenv(variable.c_str());
    return set != nullptr && *set != '\0' ? set : fallback;
}

} // extern "C"

int main(int argc, char **argv)
{
    take_options(&argc, argv);
    benchmark::Initialize(&argc, argv);
    if (benchmark::ReportUnrecognizedArguments(argc, argv))
        return 2;
    make_directory();
    bench_register_all();
    size_t run = benchmark::RunSpecifiedBenchmarks();
    benchmark::Shutdown();
    std::error_code ignored;
    std::filesystem::remove_all(directory, ignored);
    return run > 0 ? 0 : 1;
}
