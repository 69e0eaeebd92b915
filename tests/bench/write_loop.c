/*
 * The write loop in plain C, the yardstick of `poise bench write`: 512 bytes to /dev/null, N and
 * 4 N times in one process after a warm-up. Prints the slope between both, in seconds a write.
 * Never counts anything.
 *
 *     write_loop N [large-first]
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static char buffer[512];

static double seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static double batch(int fd, long iterations)
{
	double start = seconds();

	for (long i = 0; i < iterations; i++) {
		if (write(fd, buffer, sizeof buffer) != (ssize_t)sizeof buffer) {
			perror("write_loop: write");
			exit(1);
		}
	}
	return seconds() - start;
}

int main(int argc, char **argv)
{
	long n = argc > 1 ? atol(argv[1]) : 0;
	int fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
	double small, large;

	if (n < 1 || fd < 0) {
		fputs("write_loop: usage: write_loop N [large-first]\n", stderr);
		return 2;
	}
	batch(fd, n / 4 + 1);
	if (argc > 2) {
		large = batch(fd, 4 * n);
		small = batch(fd, n);
	} else {
		small = batch(fd, n);
		large = batch(fd, 4 * n);
	}
	printf("%.6e\n", (large - small) / (double)(3 * n));
	return 0;
}
