/* SPDX-License-Identifier: BSD-3-Clause */
/* main.c -- pallocator: pools from the command line. Finds the subcommand; the rest is in its own file. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/tool.h"

static const struct command {
    const char *name;
    int (*run)(int argc, const char **argv);
    const char *summary;
} commands[] = {
    {"create", create_main, "make a pool in a directory"},
    {"info", info_main, "what the pool consists of"},
    {"check", check_main, "check the whole pool; changes nothing, or repairs it"},
    {"stats", stats_main, "what is allocated, free and held"},
    {"map", map_main, "a picture of what is used, free and given back"},
    {"defrag", defrag_main, "give free space back to the file system"},
    {"bench", bench_main, "a short measurement of allocation on this machine"},
};
#define COMMANDS (sizeof commands / sizeof *commands)

static void print_usage(FILE *to)
{
    fputs("Usage: pallocator COMMAND [OPTION...] [DIR]\n\nCommands:\n", to);
    for (size_t i = 0; i < COMMANDS; i++)
        fprintf(to, "  %-8s %s\n", commands[i].name, commands[i].summary);
    fputs("\nEach takes --json and --help. Sizes take the suffixes K, M, G and T.\n"
          "Exit code: 0 done, 1 the pool is unsound, 2 usage or system error. See pallocator(1).\n",
          to);
}

static const struct command *find_command(const char *name)
{
    for (size_t i = 0; i < COMMANDS; i++)
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    return NULL;
}

/* popt shows argv[0] in its help: "pallocator create". */
static int run_command(const struct command *c, int argc, const char **argv)
{
    char name[32];
    snprintf(name, sizeof name, "pallocator %s", c->name);
    argv[0] = name;
    return tool_finish(c->run(argc, argv));
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        print_usage(stderr);
        return TOOL_FAILED;
    }
    const char *word = argv[1];
    if (strcmp(word, "--help") == 0 || strcmp(word, "-?") == 0 || (strcmp(word, "help") == 0 && argc == 2)) {
        print_usage(stdout);
        return tool_finish(TOOL_OK);
    }
    if (strcmp(word, "--version") == 0) {
        puts("pallocator " TOOL_VERSION);
        return tool_finish(TOOL_OK);
    }
    bool help = strcmp(word, "help") == 0;
    const struct command *c = find_command(help ? argv[2] : word);
    if (c == NULL) {
        fprintf(stderr, "pallocator: there is no command \"%s\"; see pallocator --help\n", help ? argv[2] : word);
        return TOOL_FAILED;
    }
    static const char *help_arguments[] = {"", "--help", NULL};
    if (help)
        return run_command(c, 2, help_arguments);
    return run_command(c, argc - 1, (const char **)argv + 1);
}
