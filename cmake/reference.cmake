# reference: the pages of docs of every public name in Lua and C (Markdown, and HTML if cmark or pandoc is there) and
# the manual pages, made by the program itself from the annotations and option tables in the source. They are not
# committed: the source has the same text, and specs make them anew.
find_program(ATOMO_MARKDOWN NAMES cmark pandoc DOC "converts the reference to HTML")
set(reference ${PROJECT_BINARY_DIR}/reference)
set(manual ${PROJECT_BINARY_DIR}/man)
set(public_headers ${PROJECT_SOURCE_DIR}/runtime/atomo_codec.h ${PROJECT_SOURCE_DIR}/runtime/atomo.h)
list(JOIN public_headers "', '" headers)          # of a table of Lua
set(all ALL)
if(CMAKE_CROSSCOMPILING OR ATOMO_FUZZ OR ATOMO_SANITIZE OR ATOMO_TSAN OR ATOMO_COVERAGE)
  set(all "")                                    # the program does not run here, or not as it is installed
endif()
set(html "")
if(ATOMO_MARKDOWN)
  set(html " require 'atomo.tools.reference.html' ('${reference}', files, '${ATOMO_MARKDOWN}', places)")
endif()
file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/bindings/atomo/*.lua)
file(GLOB scripts CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/scripts/*.lua)
add_custom_command(OUTPUT ${PROJECT_BINARY_DIR}/reference.stamp
  COMMAND ${CMAKE_COMMAND} -E make_directory ${reference} ${manual}
  COMMAND atomo-lua -E -e "local headers = {'${headers}'} local files, places = require 'atomo.tools.reference' (require 'atomo', '${reference}', headers)${html}"
  COMMAND atomo-lua -E -e "require 'atomo.tools.reference.manual' ({'${headers}'}, '${manual}')"
  COMMAND atomo-lua -E -e "require 'atomo.tools.manual' ('$<TARGET_FILE:atomo-lua>', '${manual}')"
  COMMAND sh -c "gzip -9nkf \"$1\"/*.[13]" sh ${manual}
  COMMAND ${CMAKE_COMMAND} -E touch ${PROJECT_BINARY_DIR}/reference.stamp
  DEPENDS atomo-lua ${sources} ${scripts} ${public_headers} COMMENT "Writing the reference and the manual pages" VERBATIM)
add_custom_target(reference ${all} DEPENDS ${PROJECT_BINARY_DIR}/reference.stamp)
install(DIRECTORY ${reference} DESTINATION ${CMAKE_INSTALL_DATADIR}/doc/atomo-lua COMPONENT lua
  OPTIONAL FILES_MATCHING PATTERN "*.md" PATTERN "*.html")
install(DIRECTORY ${manual}/ DESTINATION ${CMAKE_INSTALL_MANDIR}/man1 COMPONENT lua
  OPTIONAL FILES_MATCHING PATTERN "*.1.gz")
install(DIRECTORY ${manual}/ DESTINATION ${CMAKE_INSTALL_MANDIR}/man3 COMPONENT development
  OPTIONAL FILES_MATCHING PATTERN "*.3.gz")
