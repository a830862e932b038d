//go:build ignore

/*
 * portsplice-shim is what dockerd starts for every published port in place of docker-proxy: the process that it wants
 * to see, in a tenth of the memory. It has the port served by the worker of its network namespace, user and build,
 * which it starts if there is none, and waits until dockerd stops it. It decides nothing about the port: arguments,
 * environment and descriptors go to the worker as they are. Whenever a worker is not to be had it becomes the program
 * that serves one port by itself, by execve(2) with all that it was given.
 *
 * It keeps the port's socket, too. So a worker that dies takes no port along: the next one gets the socket, in whose
 * queue clients wait meanwhile.
 *
 * docs/architecture.md draws it; package internal/worker is the other end and describes the messages.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/times.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77 /* of Linux 6.5, on all that is built for (include/uapi/asm-generic/socket.h) */
#endif

enum {
	DOCKERD = 3,  /* the pipe on which dockerd waits for the answer */
	LISTENER = 4, /* the port's socket, if dockerd bound it (-use-listen-fd) */

	PATIENCE_MS = 2000, /* until a worker must have answered; dockerd gives up after 16 s */
	GOODBYE_MS = 1000,  /* until a worker must have closed the port */
	RETRY_MS = 5,       /* between two looks for a worker that another shim is starting */
	DEATHS = 3,         /* of workers, within */
	DEATHS_MS = 10000,  /* which mean that none will live */

	MOST_STRINGS = 64, /* of a request */
};

/* Data of at most a page: each page more is one for every port. */
static char program[512]; /* the Go program */
static char **arguments, **environment;
static int argument_count;
static int listener = -1; /* the port's socket */
static int opened;	  /* by a worker */
static int started;	  /* workers, for this request */
static int answered;	  /* dockerd has been: it would not hear of the port's end */

static char text[640]; /* the answer of a worker, or to dockerd */
static volatile sig_atomic_t stopping, counters; /* asked for by signals, which come in pause_for only */
static sigset_t usual;

static void note(int signal)
{
	if (signal == SIGUSR1)
		counters = 1;
	else if (stopping != SIGINT)
		stopping = signal;
}

/*
 * now_ms is a clock in milliseconds, of which only differences mean something. (clock_gettime(2) would be read in the vdso:
 * two pages of page tables for every port.)
 */
static unsigned long now_ms(void)
{
	struct tms unused;
	return (unsigned long)times(&unused) * 10; /* USER_HZ is 100 */
}

/* left is how much time there is until a deadline. */
static long left(unsigned long deadline)
{
	return deadline - now_ms();
}

/* pause_for waits until a socket is ready (none is with -1), a signal comes, or the time is over (never with -1). */
static void pause_for(int fd, long ms)
{
	struct pollfd ready = {fd, POLLIN, 0};
	struct timespec time = {ms / 1000, ms % 1000 * 1000000};
	ppoll(&ready, 1, ms < 0 ? NULL : &time, &usual);
}

/* answer tells dockerd, in one write, and lets go of its pipe. */
static void answer(const char *words, size_t length)
{
	if (answered++) /* descriptor 3 is something else by now */
		return;
	if (write(DOCKERD, words, length) < 0)
		exit(1); /* dockerd has given up: nobody would ever stop this process */
	close(DOCKERD);
}

/* fail tells dockerd, if it waits, and whoever reads standard error why the port is not served, and ends. */
static void fail(const char *what, const char *reason)
{
	char words[sizeof text];
	snprintf(words, sizeof words, "1\n%s: %s\n", what, reason);
	(void)!write(STDERR_FILENO, words + 2, strlen(words) - 2); /* first: in a person's shell there is nobody to answer */
	answer(words, strlen(words));
	exit(1);
}

static int variables(void)
{
	int n = 0;
	while (environment[n])
		n++;
	return n;
}

/* by_itself has the port served in this process. The program logs the reason, if there is one. */
static void by_itself(const char *reason)
{
	char *mode = getenv("PORTSPLICE_WORKER");
	if (reason && mode && strcmp(mode, "require") == 0 && !answered)
		fail("PORTSPLICE_WORKER=require", reason);
	int n = variables();
	/* On the stack: malloc(3) would take half a page of data, of every port. */
	char *list[argument_count + 2], *all[n + 2], why[sizeof "PORTSPLICE_NO_WORKER=" + sizeof text];
	memcpy(list, arguments, (argument_count + 1) * sizeof *list);
	list[argument_count + 1] = NULL;
	all[0] = why;
	memcpy(all + 1, environment, (n + 1) * sizeof *all);
	snprintf(why, sizeof why, "PORTSPLICE_NO_WORKER=%s", reason ? reason : "");
	if (listener >= 0) {
		dup2(listener, LISTENER);
		fcntl(LISTENER, F_SETFD, 0);
		if (opened)
			list[argument_count] = "-use-listen-fd";
	}
	execve(program, list, reason ? all : environment);
	fail(program, strerror(errno));
}

/* find_program sets program: where PORTSPLICE_PROGRAM says, or beside this one. */
static void find_program(void)
{
	char *named = getenv("PORTSPLICE_PROGRAM");
	if (named) {
		if (strlen(named) >= sizeof program)
			fail("PORTSPLICE_PROGRAM", strerror(ENAMETOOLONG));
		strcpy(program, named);
		return;
	}
	ssize_t n = readlink("/proc/self/exe", program, sizeof program - sizeof "portsplice");
	char *slash = n > 0 ? memrchr(program, '/', n) : NULL;
	strcpy(slash ? slash + 1 : program, "portsplice");
}

/* in_base writes a separator and a number, and gives its end. (With printf(3) this process kept a page more of stack.) */
static char *in_base(unsigned base, char *at, char before, unsigned long long n)
{
	int digits = 1;
	for (unsigned long long rest = n; rest /= base;)
		digits++;
	*at = before;
	for (int i = digits; i > 0; n /= base)
		at[i--] = "0123456789abcdef"[n % base];
	return at + 1 + digits;
}

/* number is in_base for messages and addresses, which have hexadecimal ones. */
static char *number(char *at, char before, unsigned long long n)
{
	return in_base(16, at, before, n);
}

/*
 * rendezvous gives the worker's address: an abstract one, which exists in this network namespace only, for this user
 * and this build of the program.
 */
static socklen_t rendezvous(struct sockaddr_un *address)
{
	struct stat file;
	if (stat(program, &file) < 0)
		return 0;
	address->sun_family = AF_UNIX;
	address->sun_path[0] = 0;
	char *end = stpcpy(address->sun_path + 1, "portsplice/1");
	end = number(end, '/', geteuid());
	end = number(end, '/', file.st_dev);
	end = number(end, '-', file.st_ino);
	end = number(end, '-', file.st_mtim.tv_sec);
	end = number(end, '.', file.st_mtim.tv_nsec);
	return end - (char *)address;
}

/* worker is what a child of this process becomes, with the socket on which it is asked. */
static void worker(int rendezvous_socket)
{
	int null = open("/dev/null", O_RDWR);
	for (int fd = 0; fd < 3; fd++)
		dup2(null, fd);
	dup2(rendezvous_socket, 3);
	fcntl(3, F_SETFD, 0); /* if it was that already */
	syscall(SYS_close_range, 4u, ~0u, 0u); /* where the kernel does not know it, what is here is close-on-exec */
	if (chdir("/") < 0)
		_exit(1);
	/* First, as a handler would note the signal in the shim's memory. */
	static const int defaults[] = {SIGHUP, SIGPIPE, SIGINT, SIGTERM, SIGUSR1};
	for (unsigned i = 0; i < sizeof defaults / sizeof *defaults; i++)
		signal(defaults[i], SIG_DFL);
	sigprocmask(SIG_SETMASK, &usual, NULL);
	/*
	 * With one CPU Go's runtime is ready sooner. The worker takes the others when it has answered, if it finds the number
	 * written as no person does.
	 */
	int n = variables();
	char *list[] = {program, "worker", NULL}, *all[n + 2];
	all[0] = "GOMAXPROCS=01";
	memcpy(all + 1, environment, (n + 1) * sizeof *all);
	execve(program, list, getenv("GOMAXPROCS") ? environment : all);
	_exit(1);
}

/* start_worker starts one that is nobody's child, unless another shim has bound the address before: then it gives 0. By
 * vfork(2), as fork(2) would copy page tables that nobody needs. It returns when the program has been executed, which only a
 * stalled disk delays; a signal waits for that, too. */
static int start_worker(struct sockaddr_un *address, socklen_t length)
{
	int s = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (s < 0)
		return 0;
	int first = bind(s, (struct sockaddr *)address, length) == 0 && listen(s, SOMAXCONN) == 0;
	if (first) {
		pid_t child = vfork();
		if (child == 0) {
			setsid();
			if (listener >= 0)
				close(listener); /* the worker gets it with the request; before its execve(2) it would keep the port bound */
			if (vfork() == 0)
				worker(s);
			_exit(0);
		}
		if (child > 0)
			waitpid(child, NULL, 0);
		started++;
	}
	close(s);
	return first;
}

static const char ended[] = "who has the worker's address has ended", contained[] = "who has the worker's address may be in a container";

/*
 * stranger says why the process at the other end may be one of a container: it has another PID namespace than this one, as
 * ofThisHost in internal/worker finds out, too. With the host's network and root as its user it would be given the ports' sockets.
 * It gives ended where the process is gone, so that nobody can tell any more, and NULL for one of this host.
 */
static const char *stranger(int s, pid_t pid)
{
	char path[48], *end;
	int process = -1;
	socklen_t size = sizeof process;
	if (getsockopt(s, SOL_SOCKET, SO_PEERPIDFD, &process, &size) == 0)
		end = in_base(10, stpcpy(path, "/proc/self/fdinfo"), '/', process);
	else if (errno == ENOPROTOOPT || errno == EOPNOTSUPP) /* before Linux 6.5; the number may be another's since */
		end = stpcpy(in_base(10, stpcpy(path, "/proc"), '/', pid), "/status");
	else
		return errno == ESRCH || errno == EINVAL || errno == ENODATA ? ended : strerror(errno);
	*end = 0;
	int about = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = about < 0 ? -1 : read(about, text, sizeof text - 1);
	int failed = errno;
	if (about >= 0)
		close(about);
	if (process >= 0)
		close(process);
	if (n < 0 && failed != ENOENT && failed != ESRCH)
		return strerror(failed);
	if (n < 0)
		return access("/proc/self", F_OK) < 0 ? "there is no /proc to look at who has the worker's address" : pid ? ended : contained;
	text[n] = 0;
	static const char name[] = "\nNSpid:\t";
	const char *line = strstr(text, "\nNSp"); /* with five bytes or more musl needs more of the stack; NSpgid comes later */
	if (!line || strncmp(line, name, sizeof name - 1) != 0) /* the kernel has no such namespaces, or more was told than fits */
		return n == sizeof text - 1 ? contained : NULL;
	const char *numbers = line + sizeof name - 1; /* one for each namespace that the process is in */
	if (*numbers == '-')
		return ended;
	return *numbers != '0' && numbers[strspn(numbers, "0123456789")] == '\n' ? NULL : contained;
}

/* reach connects to the worker. It gives -1, and why, or that dockerd stops the port meanwhile. */
static int reach(unsigned long deadline, const char **why)
{
	while (!stopping) {
		struct sockaddr_un address;
		socklen_t length = rendezvous(&address);
		if (length == 0) {
			*why = "the program is not there";
			return -1;
		}
		int s = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
		if (s < 0) {
			*why = strerror(errno);
			return -1;
		}
		struct timeval patience = {.tv_sec = PATIENCE_MS / 1000}; /* its queue may be full */
		setsockopt(s, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
		if (connect(s, (struct sockaddr *)&address, length) == 0) {
			struct ucred who;
			socklen_t size = sizeof who;
			if (getsockopt(s, SOL_SOCKET, SO_PEERCRED, &who, &size) != 0 || (who.uid != geteuid() && who.uid != 0)) {
				*why = "another user has the worker's address";
				close(s);
				return -1;
			}
			const char *strange = stranger(s, who.pid);
			if (!strange)
				return s;
			close(s);
			*why = strange;
			if (strange != ended || left(deadline) <= 0)
				return -1;
			pause_for(-1, RETRY_MS); /* a shim has listened, and its worker does not yet, or a worker has just ended */
			continue;
		}
		int failed = errno;
		close(s);
		if (failed != ECONNREFUSED || left(deadline) <= 0) {
			*why = failed == ECONNREFUSED ? "who has the worker's address does not listen" : strerror(failed);
			return -1;
		}
		if (started == DEATHS) {
			*why = "three workers died before they answered";
			return -1;
		}
		if (started)
			pause_for(-1, RETRY_MS); /* what kept the last one from its execve(2), such as a program that is being written, may pass */
		if (!start_worker(&address, length)) /* else its queue takes this process already, or it has failed */
			pause_for(-1, RETRY_MS);
	}
	return -1;
}

/*
 * ask sends all that there is to know of the port: a line, the arguments, and the variables that are for the program.
 * It gives what hear does: 0 when the worker is gone, and -1 when it has not answered yet.
 */
static int ask(int s)
{
	static struct iovec strings[MOST_STRINGS];
	char head[32];
	int n = 1;
	strings[0].iov_base = head;
	char *end = number(stpcpy(head, "serve"), ' ', argument_count - 1);
	end = number(end, ' ', listener < 0 ? 0 : opened ? 2 : answered ? 3 : 1);
	*end = 0;
	strings[0].iov_len = end + 1 - head;
	for (int i = 1; i < argument_count && n < MOST_STRINGS; i++)
		strings[n++] = (struct iovec){arguments[i], strlen(arguments[i]) + 1};
	for (char **e = environment; *e && n < MOST_STRINGS; e++)
		if (strncmp(*e, "PORTSPLICE_", 11) == 0)
			strings[n++] = (struct iovec){*e, strlen(*e) + 1};
	if (n == MOST_STRINGS)
		by_itself("there are too many arguments and variables");

	int fds[2] = {STDERR_FILENO, listener}, count = listener >= 0 ? 2 : 1;
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof fds)] = {0};
	struct msghdr message = {.msg_iov = strings, .msg_iovlen = n, .msg_control = control};
	message.msg_controllen = CMSG_SPACE(count * sizeof *fds);
	struct cmsghdr *c = CMSG_FIRSTHDR(&message);
	*c = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(count * sizeof *fds)};
	memcpy(CMSG_DATA(c), fds, count * sizeof *fds);
	if (sendmsg(s, &message, MSG_NOSIGNAL) >= 0)
		return -1;
	if (errno != EPIPE && errno != ECONNRESET && errno != ENOTCONN)
		by_itself(errno == EMSGSIZE ? "the arguments and variables are too long" : strerror(errno)); /* it would fail for ever */
	return 0;
}

/* hear receives a message into text, and the port's socket if it comes along. It gives 0 when the worker is gone. */
static ssize_t hear(int s)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))];
	struct iovec buffer = {text, sizeof text - 1};
	struct msghdr message = {.msg_iov = &buffer, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
	ssize_t n = recvmsg(s, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? -1 : 0;
	text[n] = 0;
	struct cmsghdr *c = CMSG_FIRSTHDR(&message);
	if (c && c->cmsg_type == SCM_RIGHTS)
		memcpy(&listener, CMSG_DATA(c), sizeof listener), opened = 1;
	return n;
}

/* stop has the worker close the port: at once and with all its connections, or only to new ones. */
static void stop(int s)
{
	const char *word = stopping == SIGINT ? "stop" : "close";
	send(s, word, strlen(word), MSG_NOSIGNAL);
	unsigned long deadline = now_ms() + GOODBYE_MS;
	for (long ms; (ms = left(deadline)) > 0;) {
		pause_for(s, ms);
		if (hear(s) == 0)
			break;
	}
	exit(0);
}

/*
 * served has a worker serve the port, and gives the connection to it. Without one it does not return. A worker that
 * refuses a port that was served before, as one without descriptors does, does not end it.
 */
static int served(void)
{
	unsigned long deadline = now_ms() + PATIENCE_MS;
	for (started = 0; !stopping;) {
		const char *why = NULL;
		int s = reach(deadline, &why);
		if (stopping && s < 0)
			break;
		if (s < 0)
			by_itself(why);
		ssize_t n = ask(s);
		for (long ms; n < 0 && !stopping && (ms = left(deadline)) > 0; n = hear(s))
			pause_for(s, ms);
		if (n > 0 && text[0] == '0')
			return s;
		if (n < 0 && stopping)
			stop(s); /* it has got the socket, or will */
		close(s);
		if (stopping)
			break;
		if (n > 0 && text[0] == '1' && !answered) {
			answer(text, n);
			exit(1);
		}
		if (n > 0 && text[n - 1] == '\n')
			text[n - 1] = 0;
		if (n > 0)
			by_itself(text[0] == '1' ? text + 2 : text + 1);
		if (n < 0)
			by_itself("the worker does not answer");
		pause_for(-1, RETRY_MS); /* whoever has the address may do so again */
	}
	exit(0);
}

/* catch_signals has those that mean something come in pause_for, and nowhere else. */
static void catch_signals(void)
{
	static const int ours[] = {SIGINT, SIGTERM, SIGUSR1};
	sigset_t blocked;
	sigprocmask(SIG_SETMASK, NULL, &usual);
	blocked = usual;
	for (size_t i = 0; i < sizeof ours / sizeof *ours; i++) {
		sigaddset(&blocked, ours[i]);
		sigdelset(&usual, ours[i]);
	}
	sigprocmask(SIG_SETMASK, &blocked, NULL);
	struct sigaction act = {.sa_handler = note};
	for (size_t i = 0; i < sizeof ours / sizeof *ours; i++)
		sigaction(ours[i], &act, NULL);
	signal(SIGHUP, SIG_IGN);  /* dockerd is told to reload by it */
	signal(SIGPIPE, SIG_IGN);
}

static int is(int fd, mode_t type)
{
	struct stat file;
	return fstat(fd, &file) == 0 && (file.st_mode & S_IFMT) == type;
}

/* is_itself says whether the program is this one, under another name: it would start itself for ever. */
static int is_itself(void)
{
	struct stat self, other;
	return stat("/proc/self/exe", &self) == 0 && stat(program, &other) == 0 && self.st_dev == other.st_dev &&
	       self.st_ino == other.st_ino;
}

int main(int argc, char **argv, char **envp)
{
	arguments = argv;
	argument_count = argc;
	environment = envp;
	find_program();
	if (is_itself()) {
		static const char reason[] = "1\nthe program portsplice is the shim itself; PORTSPLICE_PROGRAM says where the program is\n";
		if (is(DOCKERD, S_IFIFO))
			answer(reason, sizeof reason - 1);
		(void)!write(STDERR_FILENO, reason + 2, sizeof reason - 3);
		return 1;
	}
	char *mode = getenv("PORTSPLICE_WORKER");
	if (!is(DOCKERD, S_IFIFO) || (mode && strcmp(mode, "off") == 0))
		by_itself(NULL); /* a person's shell, or a person's word */
	catch_signals();
	if (is(LISTENER, S_IFSOCK)) {
		listener = LISTENER;
		fcntl(LISTENER, F_SETFD, FD_CLOEXEC); /* the worker gets it with the request, and must not keep another */
	}

	int s = served();
	answer("0\n", 2);
	unsigned long deaths[DEATHS] = {0}; /* when the last workers died */
	for (unsigned n = 0;;) {
		if (!stopping && !counters) /* which may have been asked for while no worker served the port */
			pause_for(s, -1);
		if (stopping)
			stop(s);
		if (counters) {
			counters = 0;
			send(s, "counters", 8, MSG_NOSIGNAL);
		}
		ssize_t heard = hear(s);
		if (heard > 0)
			exit(1); /* the port has ended by itself, and the worker has said why */
		if (heard < 0)
			continue;
		close(s);
		deaths[n++ % DEATHS] = now_ms();
		if (n >= DEATHS && now_ms() - deaths[n % DEATHS] < DEATHS_MS)
			by_itself("three workers died within ten seconds");
		s = served();
	}
}
