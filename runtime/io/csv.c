/* csv.c - reads tables of text: a header, then a row a line, fields between separators [RFC 4180]. Path: stage 1.
 *
 * The file is kept in memory. Each field is unquoted in place and ends in a 0 byte, so the fields of a row follow each
 * other, and only the offsets of rows are stored.
 */
#include "io/file.h"
#include "tensor/tensor.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    int64_t at, line; /* offset of its first field; line of the file, from 1 */
} row;

struct atomo_csv {
    char *text, *end; /* the file's bytes, one past the last */
    row *rows;        /* [count], the first one is the header */
    int64_t count, room, columns;
    char separator;
    char path[];
};

/* Where the parser is: reads at `in`, writes at `out`, which is never ahead. */
typedef struct {
    char *in, *out;
    int64_t line;
} cursor;

void atomo_csv_close(atomo_csv *c)
{
    if (!c || atomo__objects_kept()) return;
    atomo__free(c->text);
    atomo__free(c->rows);
    atomo__free(c);
}

/* ---- parsing ----------------------------------------------------------------------------------------------------- */

static int read_quoted(const atomo_csv *c, cursor *u)
{
    const int64_t opened = u->line;
    for (u->in++; u->in < c->end && *u->in != 0; *u->out++ = *u->in++) {
        if (*u->in == '\n') u->line++;
        if (*u->in == '"' && *++u->in != '"') return ATOMO_OK; /* not a doubled quote; a line's end always follows */
    }
    return atomo__fail(ATOMO_EFORMAT,
                       "csv: %s: the quote that opens on line %lld is not closed, or has a zero byte in it", c->path,
                       (long long)opened);
}

/* Returns where the field's opening quote is, after blanks; NULL if it has none. */
static char *opening_quote(const atomo_csv *c, const cursor *u)
{
    char *p = u->in;
    while ((*p == ' ' || *p == '\t') && *p != c->separator) p++;
    return *p == '"' ? p : NULL;
}

/* Reads a field and what ends it; *last: the row ends with it. */
static int read_field(const atomo_csv *c, cursor *u, bool *last)
{
    char *const quote = opening_quote(c, u);
    if (quote) {
        u->in = quote;
        ATOMO_TRY(read_quoted(c, u));
    } else
        while (*u->in != c->separator && *u->in != '\n' && *u->in != '\r') {
            ATOMO_REQUIRE(*u->in != 0, ATOMO_EFORMAT, "csv: %s: line %lld has a zero byte, expected text", c->path,
                          (long long)u->line);
            *u->out++ = *u->in++;
        }
    const bool cr = u->in < c->end && *u->in == '\r';
    if (cr) u->in++;
    *last = u->in == c->end || *u->in == '\n';
    ATOMO_REQUIRE(*last || (!cr && *u->in == c->separator), ATOMO_EFORMAT,
                  "csv: %s: line %lld: byte 0x%02x after a %s, expected '%c' or the end of the line", c->path,
                  (long long)u->line, (unsigned)(uint8_t)*u->in, cr ? "carriage return" : "closing quote",
                  c->separator);
    if (u->in < c->end) u->in++;
    *u->out++ = 0;
    return ATOMO_OK;
}

static int add_row(atomo_csv *c, const cursor *u)
{
    if (c->count == c->room) {
        const int64_t room = c->room > 0 ? 2 * c->room : 256;
        void *p;
        ATOMO_TRY(atomo__alloc(&p, (size_t)room * sizeof(row)));
        if (c->count > 0) memcpy(p, c->rows, (size_t)c->count * sizeof(row));
        atomo__free(c->rows);
        c->rows = p;
        c->room = room;
    }
    c->rows[c->count++] = (row){u->out - c->text, u->line};
    return ATOMO_OK;
}

static int read_row(atomo_csv *c, cursor *u)
{
    ATOMO_TRY(add_row(c, u));
    const int64_t line = u->line;
    int64_t fields = 0;
    for (bool last = false; !last; fields++) ATOMO_TRY(read_field(c, u, &last));
    u->line++;
    if (c->count == 1) c->columns = fields;
    ATOMO_REQUIRE(fields == c->columns, ATOMO_EFORMAT,
                  "csv: %s: line %lld has %lld fields, expected %lld as in the header", c->path, (long long)line,
                  (long long)fields, (long long)c->columns);
    return ATOMO_OK;
}

static int parse(atomo_csv *c)
{
    cursor u = {c->text, c->text, 1};
    if (c->end - c->text >= 3 && memcmp(c->text, "\xef\xbb\xbf", 3) == 0) u.in += 3; /* UTF-8's byte order mark */
    while (u.in < c->end) {
        const int blank = *u.in == '\n' ? 1 : *u.in == '\r' && u.in[1] == '\n' ? 2 : 0;
        u.in += blank;
        u.line += blank > 0;
        if (!blank) ATOMO_TRY(read_row(c, &u));
    }
    ATOMO_REQUIRE(c->count >= 2, ATOMO_EFORMAT, "csv: %s has %lld lines, expected a header and one row or more",
                  c->path, (long long)c->count);
    return ATOMO_OK;
}

static int load(atomo_csv *c)
{
    FILE *f;
    int64_t bytes;
    void *p;
    ATOMO_TRY(atomo__file_open("csv", c->path, &f, &bytes));
    int rc = atomo__alloc(&p, (size_t)bytes + 2);
    if (rc == ATOMO_OK) {
        c->text = p;
        rc = atomo__file_read("csv", c->path, f, 0, c->text, (size_t)bytes);
        c->end = c->text + bytes;
        c->text[bytes] = c->text[bytes + 1] = '\n'; /* so that every field of the last line ends */
        if (bytes > 0 && c->end[-1] != '\n') c->end++;
    }
    fclose(f);
    return rc == ATOMO_OK ? parse(c) : rc;
}

int atomo_csv_open(const char *path, int separator, atomo_csv **out)
{
    void *p;
    *out = NULL;
    ATOMO_REQUIRE(path && separator > 0 && separator < 128 && !strchr("\"\r\n", separator), ATOMO_EARG,
                  "csv_open: the path is missing, or the separator is not one ASCII character");
    const size_t n = strlen(path) + 1;
    ATOMO_TRY(atomo__calloc(&p, sizeof(atomo_csv) + n));
    atomo_csv *c = p;
    memcpy(c->path, path, n);
    c->separator = (char)separator;
    const int rc = load(c);
    if (rc < 0)
        atomo_csv_close(c);
    else
        *out = c;
    return rc;
}

/* ---- fields ------------------------------------------------------------------------------------------------------ */

int atomo_csv_columns(const atomo_csv *c)
{
    return (int)c->columns;
}

double atomo_csv_rows(const atomo_csv *c)
{
    return (double)(c->count - 1);
}

const char *atomo_csv_field(const atomo_csv *c, double i, int column)
{
    if (!(i >= 0 && i < (double)c->count) || column < 0 || column >= c->columns) return NULL;
    const char *p = c->text + c->rows[(int64_t)i].at;
    for (; column > 0; column--) p += strlen(p) + 1;
    return p;
}

/* Returns whether the text is a finite decimal number; *v = it, rounded to f32. */
static bool to_number(const char *p, float *v)
{
    const char *q = p + strspn(p, " \t");
    if (*q == 0 || strspn(q, "+-.0123456789eE \t") != strlen(q)) return false;
    char *end;
    *v = strtof(q, &end);
    return end != q && end[strspn(end, " \t")] == 0 && isfinite(*v);
}

int atomo_csv_numbers(const atomo_csv *c, const uint8_t *skip, atomo_tensor **out)
{
    double shape[2] = {(double)(c->count - 1), 0};
    for (int64_t k = 0; k < c->columns; k++) shape[1] += !skip[k];
    const bool fresh = !*out;
    ATOMO_TRY(atomo__output(out, ATOMO_F32, 2, shape, "csv_numbers"));
    float *v = atomo__f32(*out);
    for (int64_t i = 1; i < c->count; i++) {
        const char *p = c->text + c->rows[i].at;
        for (int64_t k = 0; k < c->columns; p += strlen(p) + 1, k++) {
            if (skip[k] || to_number(p, v)) {
                v += !skip[k];
                continue;
            }
            if (fresh) {
                atomo_tensor_free(*out);
                *out = NULL;
            }
            return atomo__fail(ATOMO_EFORMAT, "csv: %s: line %lld, column '%.40s': '%.40s', expected a finite number",
                               c->path, (long long)c->rows[i].line, atomo_csv_field(c, 0, (int)k), p);
        }
    }
    return ATOMO_OK;
}
