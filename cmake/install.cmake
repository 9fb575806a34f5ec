# cmake --install: bin/atomo-lua, lib/libatomo.so, share/lua/5.1/{atomo,models}, share/atomo/scripts, include/atomo.h,
# include/atomo_bindings.h, atomo.pc; and what cmake/codec.cmake installs.
# Everything finds everything else by relative paths, so an installed tree may be moved.
set(lua_dir ${CMAKE_INSTALL_DATADIR}/lua/5.1)
install(TARGETS atomo atomo-lua)
install(FILES runtime/atomo.h runtime/atomo_bindings.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(DIRECTORY bindings/atomo models DESTINATION ${lua_dir} FILES_MATCHING PATTERN "*.lua")
install(FILES README.md DESTINATION ${CMAKE_INSTALL_DATADIR}/atomo)
install(FILES ${PROJECT_BINARY_DIR}/lua/atomo_cdef.lua DESTINATION ${lua_dir})
install(DIRECTORY scripts/ DESTINATION ${CMAKE_INSTALL_DATADIR}/atomo/scripts FILES_MATCHING PATTERN "*.lua"
  PATTERN "netlab.sh" PATTERN "mpirun.sh" PATTERN "lib.sh")                                # what time_to_accuracy.lua starts

# For a stock luajit: where the library is, seen from the modules' folder.
file(RELATIVE_PATH lua_to_lib /${lua_dir} /${CMAKE_INSTALL_LIBDIR})
file(CONFIGURE OUTPUT ${PROJECT_BINARY_DIR}/generated/atomo_where.lua CONTENT
"-- Written by the build: the library, relative to the folder of this file.
return \"${lua_to_lib}/${CMAKE_SHARED_LIBRARY_PREFIX}atomo${CMAKE_SHARED_LIBRARY_SUFFIX}\"
" @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/generated/atomo_where.lua DESTINATION ${lua_dir})

atomo_pkg_config(atomo "communication-efficient training: tensors, layers, MPI and ATOMO gradient compressors")
