# cmake --install: bin/atomo-lua, lib/libatomo.so, share/lua/5.1/{atomo,models}, share/atomo/scripts, include/atomo.h,
# include/atomo_bindings.h, atomo.pc, share/doc/atomo-lua; and what cmake/codec.cmake installs. Components (packages of
# cmake/package.cmake): codec, runtime, lua, development; python is installed only by name (--component python).
# Everything finds everything else by relative paths, so an installed tree may be moved.
set(CMAKE_INSTALL_DEFAULT_COMPONENT_NAME lua)       # of what names none
set(lua_dir ${CMAKE_INSTALL_DATADIR}/lua/5.1)
install(TARGETS atomo LIBRARY COMPONENT runtime NAMELINK_COMPONENT development)
install(TARGETS atomo-lua RUNTIME COMPONENT lua)
install(FILES runtime/atomo.h runtime/atomo_bindings.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} COMPONENT development)
install(DIRECTORY bindings/atomo models DESTINATION ${lua_dir} COMPONENT lua FILES_MATCHING PATTERN "*.lua")
install(FILES README.md DESTINATION ${CMAKE_INSTALL_DATADIR}/atomo COMPONENT lua)        # train_lm.lua's text
install(FILES ${PROJECT_BINARY_DIR}/lua/atomo_cdef.lua DESTINATION ${lua_dir} COMPONENT lua)
file(GLOB scripts CONFIGURE_DEPENDS scripts/*.lua)
list(FILTER scripts EXCLUDE REGEX "/check_house.lua$")
foreach(file ${scripts} scripts/netlab.sh scripts/mpirun.sh scripts/lib.sh scripts/get_data.sh)  # .sh: what users and time_to_accuracy.lua start
  file(READ ${file} head LIMIT 2)
  if(head MATCHES "^#!")
    install(PROGRAMS ${file} DESTINATION ${CMAKE_INSTALL_DATADIR}/atomo/scripts COMPONENT lua)
  else()
    install(FILES ${file} DESTINATION ${CMAKE_INSTALL_DATADIR}/atomo/scripts COMPONENT lua)
  endif()
endforeach()
install(DIRECTORY scripts/atoms scripts/bench scripts/netlab scripts/templates DESTINATION ${CMAKE_INSTALL_DATADIR}/atomo/scripts COMPONENT lua FILES_MATCHING PATTERN "*.lua")
install(FILES README.md CHANGELOG.md CITATION.cff DESTINATION ${CMAKE_INSTALL_DATADIR}/doc/atomo-lua COMPONENT lua)
install(DIRECTORY docs DESTINATION ${CMAKE_INSTALL_DATADIR}/doc/atomo-lua COMPONENT lua
  FILES_MATCHING PATTERN "*.md" PATTERN "*.svg")
install(DIRECTORY bindings/python/atomo DESTINATION lib/python3/dist-packages COMPONENT python EXCLUDE_FROM_ALL
  FILES_MATCHING PATTERN "*.py" PATTERN "py.typed" PATTERN "__pycache__" EXCLUDE)

# For a stock luajit: where the library is, seen from the modules' folder.
file(RELATIVE_PATH lua_to_lib /${lua_dir} /${CMAKE_INSTALL_LIBDIR})
file(GENERATE OUTPUT ${PROJECT_BINARY_DIR}/generated/atomo_where.lua CONTENT
"-- Written by the build: the library, relative to the folder of this file.
return \"${lua_to_lib}/$<TARGET_SONAME_FILE_NAME:atomo>\"
")
install(FILES ${PROJECT_BINARY_DIR}/generated/atomo_where.lua DESTINATION ${lua_dir} COMPONENT lua)

atomo_pkg_config(atomo "communication-efficient training: tensors, layers, MPI and ATOMO gradient compressors")
