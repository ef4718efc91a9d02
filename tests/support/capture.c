/* capture.c - put an unlinked file in the place of stdout or stderr for a while. */
#include "tests/support/capture.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static struct {
    int saved, file;
    char text[1 << 16];
} captures[3];

static void must(int succeeded, const char *what)
{
    if (succeeded)
        return;
    perror(what);
    abort();
}

void test_capture_begin(int fd)
{
    char path[] = "/tmp/mixckpt-capture-XXXXXX";

    fflush(NULL);
    captures[fd].file = mkstemp(path);
    must(captures[fd].file >= 0, "mkstemp");
    unlink(path);
    captures[fd].saved = dup(fd);
    must(captures[fd].saved >= 0 && dup2(captures[fd].file, fd) == fd, "dup2");
}

const char *test_capture_end(int fd)
{
    ssize_t len;

    fflush(NULL);
    must(dup2(captures[fd].saved, fd) == fd, "dup2");
    close(captures[fd].saved);
    len = pread(captures[fd].file, captures[fd].text, sizeof captures[fd].text - 1, 0);
    must(len >= 0, "pread");
    close(captures[fd].file);
    captures[fd].text[len] = '\0';
    return captures[fd].text;
}
