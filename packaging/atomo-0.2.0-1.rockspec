-- The Lua side, for a LuaJIT that is managed by LuaRocks: modules atomo and models. libatomo is installed apart, by
-- `cmake --install` or from the Debian package libatomo0 of the same version. Made from a checkout:
--   luarocks --lua-version 5.1 make packaging/atomo-0.2.0-1.rockspec
rockspec_format = "3.0"
package = "atomo"
version = "0.2.0-1"
source = {url = "."}
description = {
  summary = "Training on CPU clusters with unbiased compressed gradients",
  detailed = "Tensors, layers, MPI communicators and ATOMO gradient compressors as Lua values. Needs LuaJIT and libatomo.",
  license = "MIT",
}
supported_platforms = {"unix"}
dependencies = {"lua == 5.1"}
build = {
  type = "command",
  build_command = "cmake -DCC=$(CC) -DIN=runtime/atomo_bindings.h -DOUT=atomo_cdef.lua -P cmake/cdef.cmake",
  install_command = "cp -r bindings/atomo models atomo_cdef.lua $(LUADIR)",
}
