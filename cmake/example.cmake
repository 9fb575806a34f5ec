# The example in the opening comment of IN, as a C program in OUT.
file(READ ${IN} text)
string(REGEX MATCH "\n \\*     #include.*\n \\*     }\n" text "${text}")
if(text STREQUAL "")
  message(FATAL_ERROR "${IN}: its opening comment has no example")
endif()
string(REGEX REPLACE "\n \\*(     )?" "\n" text "${text}")
get_filename_component(header ${IN} NAME)
file(WRITE ${OUT} "/* Written by the build: the example of runtime/${header}. */${text}")
