# What the build writes: the cdef (from runtime/atomo_bindings.h, which includes atomo.h and atomo_codec.h) and the tables of descriptors (from folders).

# atomo_write_table(folder symbol): every runtime/<folder>/<name>.c ends in `const struct <symbol> <symbol>_<name>`;
# the table lists them by name, NULL at the end, as `const struct <symbol> *const <symbol>_table[]`.
function(atomo_write_table folder symbol)
  file(GLOB files CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/runtime/${folder}/*.c)
  set(externs "")
  set(rows "")
  foreach(f ${files})
    get_filename_component(name ${f} NAME_WE)
    string(APPEND externs "extern const struct ${symbol} ${symbol}_${name};\n")
    string(APPEND rows "    &${symbol}_${name},\n")
  endforeach()
  set(out ${PROJECT_BINARY_DIR}/generated/${symbol}_table.c)
  file(CONFIGURE OUTPUT ${out} CONTENT
"/* Written by CMake from the files in runtime/${folder}. */
struct ${symbol};
${externs}extern const struct ${symbol} *const ${symbol}_table[];
const struct ${symbol} *const ${symbol}_table[] = {
${rows}    0
};
")
  set(atomo_tables ${atomo_tables} ${out} PARENT_SCOPE)
endfunction()

# The headers, preprocessed, wrapped as the Lua module atomo_cdef.
function(atomo_generate_cdef)
  set(out ${PROJECT_BINARY_DIR}/lua/atomo_cdef.lua)
  set(header ${PROJECT_SOURCE_DIR}/runtime/atomo_bindings.h)
  add_custom_command(OUTPUT ${out}
    DEPENDS ${header} ${PROJECT_SOURCE_DIR}/runtime/atomo.h ${PROJECT_SOURCE_DIR}/runtime/atomo_codec.h ${PROJECT_SOURCE_DIR}/cmake/cdef.cmake
    COMMAND ${CMAKE_COMMAND} -DCC=${CMAKE_C_COMPILER} -DIN=${header} -DOUT=${out}
            -P ${PROJECT_SOURCE_DIR}/cmake/cdef.cmake
    COMMENT "cdef from runtime/atomo_bindings.h" VERBATIM)
  add_custom_target(atomo_cdef ALL DEPENDS ${out})
  add_dependencies(atomo-lua atomo_cdef)
endfunction()
