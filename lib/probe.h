/*
 * probe.h - places for a tracer to attach to: see onefd-probes(7), which
 * promises their names and arguments.
 *
 * Each is a nop, and a note in the ELF file that says where its arguments lie.
 * So an argument is something at hand: what would have to be made costs even when
 * nobody traces. A semaphore that says whether somebody does would be a load
 * and a branch, and a thing that not every tracer raises.
 */
#ifndef ONEFD_PROBE_H
#define ONEFD_PROBE_H

#ifdef HAVE_USDT
#define SDT_USE_VARIADIC
#include <sys/sdt.h>
#define PROBE(name, ...) STAP_PROBEV(onefd, name, __VA_ARGS__)
#else
#define PROBE(name, ...) do { } while (0)
#endif

/* Where a request was sent: the last argument of the probe "sent". */
enum route { ROUTE_KAIO = 1, ROUTE_WORKER_KAIO, ROUTE_WORKER, ROUTE_PAGES };

#endif
