# format, format-check, lint, bench; `test` is CTest's.
file(GLOB_RECURSE atomo_c_files CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/runtime/*.[ch] ${PROJECT_SOURCE_DIR}/scripts/*.[ch] ${PROJECT_SOURCE_DIR}/tests/*.[ch] ${PROJECT_SOURCE_DIR}/examples/*.[ch])
find_program(CLANG_FORMAT clang-format)
find_program(LUACHECK luacheck)
if(CLANG_FORMAT)
  add_custom_target(format COMMAND ${CLANG_FORMAT} -i ${atomo_c_files} VERBATIM)
  add_custom_target(format-check COMMAND ${CLANG_FORMAT} --dry-run -Werror ${atomo_c_files} VERBATIM)
else()
  add_custom_target(format COMMAND ${CMAKE_COMMAND} -E echo "clang-format is missing: apt install clang-format" COMMAND false)
endif()
if(LUACHECK)
  add_custom_target(lint COMMAND ${LUACHECK} -q bindings models scripts tests
    COMMAND atomo-lua scripts/check_house.lua WORKING_DIRECTORY ${PROJECT_SOURCE_DIR} VERBATIM)
else()
  add_custom_target(lint COMMAND ${CMAKE_COMMAND} -E echo "luacheck is missing: apt install lua-check" COMMAND false)
endif()
add_custom_target(bench COMMAND atomo-lua ${PROJECT_SOURCE_DIR}/scripts/bench_nn.lua
  COMMAND atomo-lua ${PROJECT_SOURCE_DIR}/scripts/bench_codec.lua
  WORKING_DIRECTORY ${PROJECT_SOURCE_DIR} DEPENDS atomo-lua USES_TERMINAL VERBATIM)
