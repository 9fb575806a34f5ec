# cmake --install: bin/atomo-lua, lib/libatomo.so, lib/libatomo-codec.so, share/lua/5.1/{atomo,models}, share/atomo/scripts, include/atomo.h,
# include/atomo_bindings.h, include/atomo_codec.h, atomo.pc, atomo-codec.pc.
# Everything finds everything else by relative paths, so an installed tree may be moved.
set(lua_dir ${CMAKE_INSTALL_DATADIR}/lua/5.1)
install(TARGETS atomo atomo-codec atomo-lua)
install(FILES runtime/atomo.h runtime/atomo_bindings.h runtime/atomo_codec.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
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

file(RELATIVE_PATH pc_to_prefix /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
function(atomo_pkg_config library description)
  set(out ${PROJECT_BINARY_DIR}/generated/${library}.pc)
  file(CONFIGURE OUTPUT ${out} CONTENT
"prefix=\${pcfiledir}/${pc_to_prefix}
libdir=\${prefix}/${CMAKE_INSTALL_LIBDIR}
includedir=\${prefix}/${CMAKE_INSTALL_INCLUDEDIR}
Name: ${library}
Description: ${description}
Version: ${PROJECT_VERSION}
Libs: -L\${libdir} -l${library}
Cflags: -I\${includedir}
" @ONLY)
  install(FILES ${out} DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
endfunction()
atomo_pkg_config(atomo "communication-efficient training: tensors, layers, MPI and ATOMO gradient compressors")
atomo_pkg_config(atomo-codec "ATOMO gradient compressors: gradients to messages and back, without MPI or Lua")

# What `cmake --install` of this build wrote last: its files, and the folders of the package once they are empty.
add_custom_target(uninstall COMMAND ${CMAKE_COMMAND} -DMANIFEST=${PROJECT_BINARY_DIR}/install_manifest.txt
  -P ${PROJECT_SOURCE_DIR}/cmake/uninstall.cmake VERBATIM)
