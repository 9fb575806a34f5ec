# libatomo-codec: the folders of the runtime that use no other one (scripts/house/layers.lua checks it), compiled once, as
# atomo_codec_objects, for libatomo, too. Uses atomo_flags. Sets codec_src.
set(codec_globs "")
foreach(folder core tensor sampling coding codec atoms compress)
  list(APPEND codec_globs ${PROJECT_SOURCE_DIR}/runtime/${folder}/*.c)
endforeach()
file(GLOB_RECURSE codec_src CONFIGURE_DEPENDS ${codec_globs})
atomo_write_table(atoms    atomo_atoms)
atomo_write_table(compress atomo_compressor)

# Settings of all objects of the runtime, which use `packages`. ATOMO_OBJECTS: the folder of another build of this tree, with
# the same options, whose objects are taken (scripts/test.sh tests packages without compiling twice).
function(atomo_object_library name packages)
  if(ATOMO_OBJECTS)
    file(GLOB_RECURSE objects ${ATOMO_OBJECTS}/CMakeFiles/${name}.dir/*.o)
    add_library(${name} OBJECT IMPORTED)
    set_target_properties(${name} PROPERTIES IMPORTED_OBJECTS "${objects}")
    return()
  endif()
  add_library(${name} OBJECT ${ARGN})
  target_link_libraries(${name} PUBLIC ${packages})
  target_include_directories(${name} PUBLIC ${PROJECT_SOURCE_DIR}/runtime ${PROJECT_BINARY_DIR}/generated)
  target_compile_options(${name} PRIVATE ${atomo_flags})
  target_compile_definitions(${name} PRIVATE ATOMO_BUILDING ATOMO_VERSION="${PROJECT_VERSION}")
endfunction()
atomo_object_library(atomo_codec_objects atomo_codec_packages ${codec_src} ${atomo_tables})
if(ATOMO_FFTW)
  set_source_files_properties(runtime/core/packages.c PROPERTIES COMPILE_DEFINITIONS ATOMO_HAVE_FFTW)
endif()

# Settings of both libraries. A process may load both: each calls its own functions. OpenBLAS and FFTW outside the
# system's folders, which are loaded at run time, are found as if linked to.
set(package_dirs ${OPENBLAS_LIBRARY_DIRS} ${FFTW_LIBRARY_DIRS})
list(REMOVE_ITEM package_dirs ${CMAKE_C_IMPLICIT_LINK_DIRECTORIES})
function(atomo_shared_library name)
  add_library(${name} SHARED ${ARGN})
  set_target_properties(${name} PROPERTIES VERSION ${PROJECT_VERSION} SOVERSION 0 LINKER_LANGUAGE C
    BUILD_RPATH "${package_dirs}" INSTALL_RPATH "${package_dirs}" INSTALL_RPATH_USE_LINK_PATH ON)
  # nodelete: an exit handler of libatomo, and OpenMP's threads, run after a dlclose
  target_link_options(${name} PRIVATE LINKER:-Bsymbolic-functions LINKER:--as-needed LINKER:-z,nodelete)
endfunction()

# Exports what atomo_codec.h declares and no more: the list is atomo-codec.map, with the version of each symbol.
set(codec_map ${PROJECT_SOURCE_DIR}/cmake/atomo-codec.map)
atomo_shared_library(atomo-codec $<TARGET_OBJECTS:atomo_codec_objects>)
target_include_directories(atomo-codec INTERFACE ${PROJECT_SOURCE_DIR}/runtime)
target_link_libraries(atomo-codec PRIVATE atomo_codec_packages)
target_link_options(atomo-codec PRIVATE LINKER:--version-script=${codec_map})
set_property(TARGET atomo-codec PROPERTY LINK_DEPENDS ${codec_map})

# ---- installing: lib/libatomo-codec.so, include/atomo_codec.h, atomo-codec.pc -------------------
install(TARGETS atomo-codec LIBRARY COMPONENT codec NAMELINK_COMPONENT development)
install(FILES runtime/atomo_codec.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} COMPONENT development)
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
  install(FILES ${out} DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig COMPONENT development)
endfunction()
atomo_pkg_config(atomo-codec "ATOMO gradient compressors: gradients to messages and back, without MPI or Lua")

# What `cmake --install` of this build wrote last: its files, and the folders of the package once they are empty.
add_custom_target(uninstall COMMAND ${CMAKE_COMMAND} -DMANIFEST=${PROJECT_BINARY_DIR}/install_manifest.txt
  -P ${PROJECT_SOURCE_DIR}/cmake/uninstall.cmake VERBATIM)
