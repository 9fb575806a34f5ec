/* onednn_md.h - oneDNN's memory descriptors: values in version 2.x, opaque handles in 3.x. Private. */
#ifndef ATOMO_ONEDNN_MD_H
#define ATOMO_ONEDNN_MD_H

#include <oneapi/dnnl/dnnl.h>

#if DNNL_VERSION_MAJOR >= 3

typedef const_dnnl_memory_desc_t md_ref;
#define MD_REF(md) (md)

static inline dnnl_status_t md_strided(dnnl_memory_desc_t *md, int nd, const dnnl_dims_t dims, dnnl_data_type_t type,
                                       const dnnl_dims_t strides)
{
    return dnnl_memory_desc_create_with_strides(md, nd, dims, type, strides);
}

static inline void md_free(dnnl_memory_desc_t *md)
{
    if (*md) dnnl_memory_desc_destroy(*md);
    *md = NULL;
}

#else

typedef const dnnl_memory_desc_t *md_ref;
#define MD_REF(md) (&(md))

static inline dnnl_status_t md_strided(dnnl_memory_desc_t *md, int nd, const dnnl_dims_t dims, dnnl_data_type_t type,
                                       const dnnl_dims_t strides)
{
    return dnnl_memory_desc_init_by_strides(md, nd, dims, type, strides);
}

static inline void md_free(dnnl_memory_desc_t *md)
{
    (void)md;
}

#endif

#endif
