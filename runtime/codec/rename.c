/* rename.c - gives a codec that serves a compressor written in Lua that compressor's name: in error texts, in the
 * frame's id and in the hash. So no other compressor accepts its messages. Stage 6 of the path. */
#include "codec/codec.h"

int atomo_codec_rename(atomo_codec *c, const char *name)
{
    ATOMO_REQUIRE(c->plans == 0, ATOMO_EARG, "%s: rename: tensors are planned already", c->name);
    void *own;
    ATOMO_TRY(atomo__alloc(&own, strlen(name) + 1));
    atomo__free(c->own_name);
    c->name = c->own_name = memcpy(own, name, strlen(name) + 1);
    c->id = atomo__crc32(0, name, strlen(name)) & 255;
    return ATOMO_OK;
}
