/* watchdog.c - detects that an operation makes no progress, names the ranks that it waits for, and finally stops the
 * job.
 *
 * Every rank has a watchdog thread, from MPI's start to its end. It calls MPI only to abort, and reads the flight
 * recorder a few times a second. When the current operation has made no progress for `warn` seconds, it asks the
 * watchdogs of the ranks that take part what they do (query.c); of many, first a few (whom.c). A rank that does not
 * answer is reported as stopped; a rank in its script or in another operation as late. Of several waiting ranks, the
 * lowest one prints the warning. If an operation waits for a rank that has reached the end of the program, the watchdog
 * ends the job after some seconds, whatever the limits are. After `abort` seconds it makes every rank write its flight
 * recorder, prints a last word and aborts the job (ending.c). Path: stage 7.
 */
#define _GNU_SOURCE
#include "watchdog/watchdog.h"
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

/* All in seconds. */
static const double ANSWERS = 1.0, AGAIN = 0.25; /* to wait for answers; between repetitions of a question */
static const double GRACE = 3.0;                 /* for a lower waiting rank to end the job, before this one does */
static const double END = 20.0;        /* for another rank's abort to end the job, before this one kills itself */
static const double GONE = 5.0;        /* without progress, before asking whether a rank has left the program */
static const double GONE_ASKED = 30.0; /* the same for an operation that asks by itself (comm/ended.c) */
static const double WARN = 60.0;       /* `warn` until atomo_watchdog_start sets it */

static struct {
    pthread_mutex_t lock; /* guards the fields that start and stop change */
    pthread_t thread;
    bool running, stopping;
    double warn, abort; /* seconds; 0: never */
    char prefix[512];   /* of the flight recorder's file names */
    atomo_peer *peers;  /* [n] all ranks of the job */
    atomo_peer *asked;  /* [n] scratch: the ranks that take part in the stalled operation */
    bool *member;       /* [n] whether a rank takes part in it */
    bool *wanted;       /* [n] whether it is asked */
    uint32_t *failed;   /* [n] checksums of the errors that ranks end with; 0: none */
    uint32_t said;      /* checksum of the error that a rank has printed; 0: none */
    int n, own;         /* number of ranks; this rank */
} dog = {.lock = PTHREAD_MUTEX_INITIALIZER};

static atomic_bool elsewhere; /* another rank has said that it ends the job */

/* State that only the watchdog thread uses. */
typedef struct watch {
    atomo_flight_op op;   /* the newest operation at the last look */
    uint64_t progress;    /* of the flight recorder at the last look */
    double waited, since; /* seconds without progress; since the last operation ended */
    double warn_at;       /* `waited` at which to warn next */
    double gone_at;       /* `waited` at which to ask next whether a rank has left */
    double asked, sent;   /* times when the current question was first and last sent; 0: no question */
    double waited_then;   /* `waited` when it was first sent */
    uint32_t round;       /* number of the question */
    int reach;            /* how many of the ranks after this one are asked at first */
    bool all, mine;       /* all that take part are asked; it is for this rank to end the job if one has left */
    double ending;        /* time when another rank announced that it ends the job; 0: none has */
    bool written, told;   /* the flight recorder has been written; a warning has been printed */
} watch;

/* Returns the seconds between two looks at the flight recorder. */
static double tick(void)
{
    if (dog.warn + dog.abort == 0) return 0.5;
    double least = dog.warn > 0 && dog.abort > 0 ? ATOMO_MIN(dog.warn, dog.abort) : ATOMO_MAX(dog.warn, dog.abort);
    return ATOMO_MAX(0.02, ATOMO_MIN(0.5, least / 8));
}

static void state_here(const watch *w, atomo_query_state *s)
{
    memset(s, 0, sizeof *s);
    s->waiting = w->op.sequence > 0 && w->op.end == 0;
    s->ended = s->waiting && w->op.patient && atomo__requests_open() == 0;
    s->number = w->op.number;
    s->seconds = s->waiting ? w->waited : w->since;
    s->step = atomo_noted_step();
    if (w->op.operation) strncpy(s->operation, w->op.operation, sizeof s->operation - 1);
    memcpy(s->note, w->op.note, sizeof s->note);
}

static void write_flight(watch *w, const char *why)
{
    char path[sizeof dog.prefix + 32], line[1200];
    if (w->written) return;
    w->written = true;
    snprintf(path, sizeof path, "%s-rank%d.jsonl", dog.prefix, dog.peers[dog.own].rank);
    if (atomo_flight_write(path, why) == ATOMO_OK) return;
    snprintf(line, sizeof line, "atomo-lua: %s: %s\n", atomo_mpi_label(), atomo_last_error());
    atomo__watchdog_say(line);
}

/* ---- questions and answers ------------------------------------------------------------------------------------- */

static void ask(watch *w)
{
    for (int i = 0; i < dog.n; i++)
        if (dog.wanted[i] && !dog.peers[i].answered) atomo__query_send(&dog.peers[i], QUERY_ASK, w->round, NULL);
    w->sent = atomo_time();
}

static void ask_wanted(watch *w)
{
    w->asked = atomo_time();
    w->waited_then = w->waited;
    w->round++;
    for (int i = 0; i < dog.n; i++) dog.peers[i].answered = 0;
    ask(w);
}

static void ask_a_few(watch *w, bool lowest)
{
    w->all = atomo__whom_to_ask(dog.member, dog.n, dog.own, w->reach, lowest, dog.wanted);
    w->mine = false;
    ask_wanted(w);
}

static void ask_all(watch *w)
{
    w->all = true;
    memcpy(dog.wanted, dog.member, sizeof *dog.wanted * (size_t)dog.n);
    ask_wanted(w);
}

static void handle(watch *w, const atomo_packet *p)
{
    for (int i = 0; i < dog.n; i++) {
        atomo_peer *peer = &dog.peers[i];
        if (peer->rank != p->from) continue;
        if (p->kind == QUERY_ASK) {
            atomo_query_state s;
            state_here(w, &s);
            atomo__query_send(peer, QUERY_ANSWER, p->round, &s);
        } else if (p->kind == QUERY_ANSWER && p->round == w->round) {
            peer->answered = 1;
            peer->state = p->state;
        } else if (p->kind == QUERY_WRITE) {
            elsewhere = true;
            write_flight(w, "another rank found the job stalled");
            if (!w->ending) w->ending = atomo_time();
        } else if (p->kind == QUERY_FAILED) {
            elsewhere = true;
            dog.failed[i] = p->state.number;
            if (p->state.ended) dog.said = p->state.number;
        }
    }
}

static bool all_answered(void)
{
    for (int i = 0; i < dog.n; i++)
        if (dog.wanted[i] && dog.peers[i].port && !dog.peers[i].answered) return false;
    return true;
}

/* ---- warning and ending the job -------------------------------------------------------------------------------- */

static void give_up(watch *w, const char *what)
{
    for (int i = 0; i < dog.n; i++)
        if (i != dog.own) atomo__query_send(&dog.peers[i], QUERY_WRITE, w->round, NULL);
    write_flight(w, what);
    atomo__end_stalled(what, dog.prefix);
}

static void warn(watch *w, const char *what)
{
    char line[ATOMO__STALL_TEXT + 512], rest[96] = "the job waits on";
    if (dog.abort > 0 && !w->op.patient)
        snprintf(rest, sizeof rest, "--stall-abort ends the job after %.0f s", dog.abort);
    snprintf(line, sizeof line, "atomo-lua: %s: %s  %s\n", atomo_mpi_label(), what, rest);
    atomo__watchdog_say(line);
    w->told = true;
}

/* Returns the stall with the ranks that were asked and their answers. */
static atomo_stall stall_of(const watch *w)
{
    atomo_stall s = {&w->op, w->waited, dog.asked, 0, 0};
    for (int i = 0; i < dog.n; i++) {
        if (i == dog.own) s.own = s.n;
        if (i == dog.own || dog.wanted[i]) dog.asked[s.n++] = dog.peers[i];
    }
    return s;
}

static bool has_left(const atomo_stall *s)
{
    for (int i = 0; i < s->n; i++)
        if (i != s->own && s->peers[i].answered && s->peers[i].state.ended) return true;
    return false;
}

/* Warns or ends the job. Called when all answers have arrived, or ANSWERS seconds after the question. */
static void conclude(watch *w)
{
    char what[ATOMO__STALL_TEXT];
    const atomo_stall stall = stall_of(w);
    const bool gone = has_left(&stall) && !w->op.patient && (!w->op.asks || w->waited >= GONE_ASKED);
    const bool over = dog.abort > 0 && !w->op.patient && w->waited >= dog.abort;
    const bool warns = dog.warn > 0 && w->waited >= w->warn_at;
    const bool silent = atomo__stall_spoken_for(&stall, w->waited_then / 2);
    if (!w->all) {
        w->mine = gone && (atomo__next_has_left(&stall) || w->waited >= 2 * GONE);
        if (w->mine || ((over || warns) && !silent)) {
            ask_all(w);
            return;
        }
    }
    w->asked = 0;
    atomo__stall_text(&stall, what, sizeof what);
    if (gone && w->all && (w->mine || !silent || w->waited >= 2 * GONE)) atomo__end_left(what);
    w->gone_at = w->waited + GONE;
    if (!w->all && !gone && !atomo__another_waits(&stall)) { /* nobody else asks the ranks beyond */
        w->reach = ATOMO_MIN(2 * w->reach, dog.n);
        w->gone_at = w->waited;
    }
    if (over && (!silent || w->waited >= dog.abort + GRACE)) give_up(w, what);
    if (over || !warns) return;
    if (!silent) warn(w, what);
    w->warn_at = 2 * ATOMO_MAX(w->waited, w->warn_at / 2);
}

/* Returns whether a limit of the user has been reached, so that a rank is to speak. */
static bool to_speak(const watch *w)
{
    return (dog.abort > 0 && !w->op.patient && w->waited >= dog.abort) || (dog.warn > 0 && w->waited >= w->warn_at);
}

/* Returns whether other ranks are to be asked. */
static bool due(const watch *w)
{
    return to_speak(w) || (!w->op.patient && w->waited >= w->gone_at);
}

/* Looks at the flight recorder, dt seconds after the last look. */
static void look(watch *w, double dt)
{
    atomo_flight_op now;
    uint64_t progress;
    if (!atomo__flight_last(&now, &progress)) return;
    const bool same = now.sequence == w->op.sequence && progress == w->progress;
    const bool waits = now.end == 0;
    w->since = now.sequence == w->op.sequence && !waits ? w->since + dt : 0;
    if (w->told && !(same && waits)) {
        char line[600];
        snprintf(line, sizeof line, "atomo-lua: %s: continues after %.0f s in %s\n", atomo_mpi_label(), w->waited,
                 w->op.operation);
        atomo__watchdog_say(line);
        w->told = false;
    }
    w->waited = same && waits ? w->waited + dt : 0;
    if (now.asks && !w->op.asks) w->gone_at = GONE_ASKED;
    w->op = now;
    w->progress = progress;
    if (w->waited == 0) {
        w->warn_at = dog.warn;
        w->gone_at = w->op.asks ? GONE_ASKED : GONE;
        w->reach = ATOMO__FEW;
        w->asked = 0;
    } else if (!w->asked && due(w) && atomo__flight_members(w->op.sequence, dog.member, dog.n)) {
        dog.member[dog.own] = false;
        ask_a_few(w, to_speak(w));
    }
}

static void *run(void *unused)
{
    (void)unused;
    static watch w;
    for (double last = atomo_time();;) {
        atomo_packet p;
        pthread_mutex_lock(&dog.lock);
        const double pause = tick(); /* needs the lock, since another thread may change the limits */
        pthread_mutex_unlock(&dog.lock);
        const bool came = atomo__query_receive(w.asked ? ATOMO_MIN(AGAIN, pause) : pause, &p);
        pthread_mutex_lock(&dog.lock);
        if (dog.stopping) break;
        if (came) handle(&w, &p);
        /* The time is capped, because a process that was stopped and continued has not waited in between. */
        const double now = atomo_time(), dt = ATOMO_MIN(now - last, 4 * tick());
        last = now;
        if (w.ending) { /* another rank ends the job; if that fails this one does */
            if (now - w.ending > END) atomo__end_job(ATOMO__EXIT_STALLED);
            pthread_mutex_unlock(&dog.lock);
            continue;
        }
        look(&w, dt);
        if (w.asked && (all_answered() || now - w.asked >= ANSWERS))
            conclude(&w);
        else if (w.asked && now - w.sent >= AGAIN)
            ask(&w);
        pthread_mutex_unlock(&dog.lock);
    }
    pthread_mutex_unlock(&dog.lock);
    return NULL;
}

static int start_thread(void)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const int rc = pthread_create(&dog.thread, NULL, run, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    ATOMO_REQUIRE(rc == 0, ATOMO_EIO, "watchdog: cannot start its thread: pthread_create returned %d", rc);
    dog.running = true;
    return ATOMO_OK;
}

/* Starts the watchdog with the default limits, when MPI starts. [collective] */
static int open_dog(atomo_comm *world)
{
    if (world->size == 1 || dog.peers) return ATOMO_OK;
    void *p;
    const size_t n = (size_t)world->size;
    ATOMO_TRY(atomo__calloc(&p, n * (sizeof *dog.asked + sizeof *dog.failed + 2 * sizeof *dog.member)));
    dog.asked = p;
    dog.failed = (uint32_t *)(dog.asked + n);
    dog.member = (bool *)(dog.failed + n);
    dog.wanted = dog.member + n;
    dog.n = world->size;
    dog.own = world->rank;
    dog.warn = WARN;
    strcpy(dog.prefix, "flight");
    ATOMO_TRY(atomo__query_open(world, &dog.peers));
    return start_thread();
}

int atomo_watchdog_start(atomo_comm *c, double warn_after, double abort_after, const char *prefix)
{
    ATOMO_TRY(atomo__comm_usable(c, "watchdog"));
    ATOMO_REQUIRE(warn_after >= 0 && abort_after >= 0, ATOMO_EARG,
                  "watchdog: warn after %g s, abort after %g s, expected 0 (never) or more", warn_after, abort_after);
    ATOMO_REQUIRE(prefix && *prefix && strlen(prefix) < sizeof dog.prefix, ATOMO_EARG,
                  "watchdog: the prefix of the flight recorder's files is empty or longer than %d bytes",
                  (int)sizeof dog.prefix - 1);
    if (c->size == 1) return ATOMO_OK;
    pthread_mutex_lock(&dog.lock);
    dog.warn = warn_after;
    dog.abort = abort_after;
    strncpy(dog.prefix, prefix, sizeof dog.prefix - 1);
    pthread_mutex_unlock(&dog.lock);
    return ATOMO_OK;
}

/* Returns the checksum of the text's first line, which is the error; the other lines are this rank's traceback. */
static uint32_t checksum(const char *text)
{
    return atomo__crc32(0, text, strcspn(text, "\n"));
}

void atomo_failure_tell(const char *text, int said)
{
    const atomo_query_state state = {.number = checksum(text), .ended = said};
    pthread_mutex_lock(&dog.lock);
    for (int i = 0; dog.running && i < dog.n; i++)
        if (i != dog.own) atomo__query_send(&dog.peers[i], QUERY_FAILED, 0, &state);
    pthread_mutex_unlock(&dog.lock);
}

int atomo_failure_is_told(const char *text)
{
    const uint32_t own = checksum(text);
    int told = 0;
    pthread_mutex_lock(&dog.lock);
    for (int i = 0; dog.running && i < dog.own; i++) told |= dog.failed[i] == own;
    if (dog.said == own) told = 2;
    pthread_mutex_unlock(&dog.lock);
    return told;
}

int atomo_failure_elsewhere(void)
{
    return elsewhere;
}

static void stop(void)
{
    if (!dog.running) return;
    pthread_mutex_lock(&dog.lock);
    dog.stopping = true;
    pthread_mutex_unlock(&dog.lock);
    pthread_join(dog.thread, NULL);
    dog.running = false;
    atomo__query_close();
    atomo__free(dog.peers);
    atomo__free(dog.asked);
    dog.peers = dog.asked = NULL;
}

/* Runs when the library is loaded, so that every job has a watchdog. */
__attribute__((constructor)) static void enlist(void)
{
    atomo__at_start(open_dog);
    atomo__at_finalize(NULL, stop);
}
