# cmake --install: bin/atomo-lua, lib/libatomo.so, share/lua/5.1/{atomo,models}, include/atomo.h, atomo.pc.
set(lua_dir ${CMAKE_INSTALL_DATADIR}/lua/5.1)
install(TARGETS atomo atomo-lua)
install(FILES runtime/atomo.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(DIRECTORY bindings/atomo models DESTINATION ${lua_dir} FILES_MATCHING PATTERN "*.lua")
install(FILES ${PROJECT_BINARY_DIR}/lua/atomo_cdef.lua DESTINATION ${lua_dir})
install(DIRECTORY scripts/ DESTINATION ${CMAKE_INSTALL_DATADIR}/atomo/scripts FILES_MATCHING PATTERN "*.lua")
file(CONFIGURE OUTPUT ${PROJECT_BINARY_DIR}/generated/atomo.pc CONTENT
"prefix=\${pcfiledir}/../..
libdir=\${prefix}/${CMAKE_INSTALL_LIBDIR}
includedir=\${prefix}/${CMAKE_INSTALL_INCLUDEDIR}
Name: atomo
Description: communication-efficient training: tensors, layers, MPI and ATOMO gradient compressors
Version: ${PROJECT_VERSION}
Libs: -L\${libdir} -latomo
Cflags: -I\${includedir}
" @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/generated/atomo.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
