# cpack -G DEB: Debian packages of the components of cmake/install.cmake. The preset `package` has what they need: the
# prefix /usr (with Debian's folders of libraries) and no search paths in the libraries.
#   cmake --preset package && cmake --build build/package -j && (cd build/package && cpack -G DEB)
set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME atomo)
set(CPACK_PACKAGE_VENDOR "the atomo-lua maintainers")
set(CPACK_VERBATIM_VARIABLES ON)
set(CPACK_STRIP_FILES ON)
set(CPACK_INSTALL_DEFAULT_DIRECTORY_PERMISSIONS OWNER_READ OWNER_WRITE OWNER_EXECUTE GROUP_READ GROUP_EXECUTE WORLD_READ WORLD_EXECUTE)

# Who builds a package is named as its maintainer, as Debian's own tools do it.
set(ATOMO_PACKAGER "the atomo-lua maintainers <root@localhost>")
if(DEFINED ENV{DEBEMAIL})
  set(ATOMO_PACKAGER "$ENV{DEBFULLNAME} <$ENV{DEBEMAIL}>")
endif()
set(CPACK_PACKAGE_CONTACT "${ATOMO_PACKAGER}")

set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_COMPONENTS_GROUPING ONE_PER_GROUP)
set(CPACK_COMPONENTS_ALL codec runtime lua development python)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_COMPRESSION_TYPE xz)
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS_PRIVATE_DIRS ${PROJECT_BINARY_DIR})   # libatomo.so.0 of this build, for atomo-lua

# atomo_debian(COMPONENT PACKAGE SECTION SUMMARY TEXT FIELD VALUE...): fields of its control file, and what policy wants in
# share/doc/PACKAGE: the licence and Debian's changelog.
function(atomo_debian component package section summary text)
  string(TOUPPER ${component} COMPONENT)
  set(prefix CPACK_DEBIAN_${COMPONENT})
  set(${prefix}_PACKAGE_NAME ${package} PARENT_SCOPE)
  set(${prefix}_PACKAGE_SECTION ${section} PARENT_SCOPE)
  set(${prefix}_DESCRIPTION "${summary}\n${text}" PARENT_SCOPE)
  while(ARGN)
    list(POP_FRONT ARGN field value)
    set(${prefix}_PACKAGE_${field} "${value}" PARENT_SCOPE)
  endwhile()
  set(doc ${PROJECT_BINARY_DIR}/generated/debian/${package})
  file(MAKE_DIRECTORY ${doc})
  file(READ ${PROJECT_SOURCE_DIR}/LICENSE licence)
  file(WRITE ${doc}/copyright "atomo-lua, all files:\n\n${licence}
On Debian systems, /usr/share/common-licenses/GPL-2 has the text of the GNU General Public License, version 2.
")
  string(TIMESTAMP date "%a, %d %b %Y %H:%M:%S +0000" UTC)
  file(WRITE ${doc}/changelog
"atomo (${PROJECT_VERSION}) unstable; urgency=medium

  * Version ${PROJECT_VERSION}: CHANGELOG.md in the package atomo-lua has the news.

 -- ${ATOMO_PACKAGER}  ${date}
")
  execute_process(COMMAND gzip -9nf ${doc}/changelog)
  install(FILES ${doc}/copyright ${doc}/changelog.gz DESTINATION ${CMAKE_INSTALL_DATADIR}/doc/${package}
    COMPONENT ${component} EXCLUDE_FROM_ALL)
endfunction()

# A shared library's control files: what programs that are linked to it depend on, and the loader's cache.
function(atomo_debian_library component package)
  string(TOUPPER ${component} COMPONENT)
  set(control ${PROJECT_BINARY_DIR}/generated/debian/${package}.control)
  string(REGEX REPLACE "0$" "" library ${package})
  file(WRITE ${control}/shlibs "${library} 0 ${package} (>= ${PROJECT_VERSION})\n")
  file(WRITE ${control}/triggers "activate-noawait ldconfig\n")
  set(CPACK_DEBIAN_${COMPONENT}_PACKAGE_CONTROL_EXTRA ${control}/shlibs ${control}/triggers PARENT_SCOPE)
endfunction()
atomo_debian_library(codec libatomo-codec0)
atomo_debian_library(runtime libatomo0)

set(atomo_text "ATOMO compresses the gradients of distributed training to a 64th to a 256th of
their bytes, without bias and with a known variance.")
set(same_version "(= ${PROJECT_VERSION})")
atomo_debian(codec libatomo-codec0 libs "ATOMO gradient compressors, shared library" "${atomo_text}

This package has the compressors alone, without MPI and Lua. OpenBLAS and FFTW
are loaded by the compressors that need them."
  SHLIBDEPS ON RECOMMENDS "libopenblas0-openmp | libopenblas0, libfftw3-single3")
atomo_debian(runtime libatomo0 libs "training runtime with ATOMO gradient compressors, shared library" "${atomo_text}

This package has the runtime: tensors, layers, MPI and the compressors."
  SHLIBDEPS ON DEPENDS "libopenblas0-openmp" RECOMMENDS "libfftw3-single3")
atomo_debian(lua atomo-lua science "trains neural networks on CPU clusters with compressed gradients" "${atomo_text}

This package has the program atomo-lua, which runs Lua scripts on MPI ranks,
its Lua modules, the models, the training scripts and the documentation."
  SHLIBDEPS ON DEPENDS "libatomo0 ${same_version}" RECOMMENDS "openmpi-bin, procps" SUGGESTS "curl | wget, luajit, lua-busted")
atomo_debian(development libatomo-dev libdevel "ATOMO gradient compressors, development files" "${atomo_text}

This package has the headers and pkg-config files of libatomo and
libatomo-codec."
  DEPENDS "libatomo0 ${same_version}, libatomo-codec0 ${same_version}" SUGGESTS "pkg-config" SHLIBDEPS OFF)
atomo_debian(python python3-atomo python "ATOMO gradient compressors for NumPy and PyTorch" "${atomo_text}

This package has the Python bindings, and a communication hook of PyTorch's
DistributedDataParallel."
  ARCHITECTURE all DEPENDS "python3 (>= 3.9), python3-numpy, libatomo-codec0 (>= ${PROJECT_VERSION})" SUGGESTS "python3-torch"
  SHLIBDEPS OFF CONTROL_EXTRA "${PROJECT_SOURCE_DIR}/packaging/debian/postinst;${PROJECT_SOURCE_DIR}/packaging/debian/prerm")
install(DIRECTORY examples/pytorch examples/mpi4py DESTINATION ${CMAKE_INSTALL_DATADIR}/doc/python3-atomo/examples
  COMPONENT python EXCLUDE_FROM_ALL FILES_MATCHING PATTERN "*.py" PATTERN "__pycache__" EXCLUDE)
install(FILES examples/c/tcp_average.c DESTINATION ${CMAKE_INSTALL_DATADIR}/doc/libatomo-dev/examples
  COMPONENT development EXCLUDE_FROM_ALL)
include(CPack)
