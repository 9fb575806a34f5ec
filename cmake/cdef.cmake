# cc -E -P on the headers, wrapped as a Lua module that returns the text for ffi.cdef.
execute_process(COMMAND ${CC} -E -P -DATOMO_CDEF ${IN} OUTPUT_VARIABLE text RESULT_VARIABLE rc)
if(NOT rc EQUAL 0)
  message(FATAL_ERROR "preprocessing ${IN} failed")
endif()
file(WRITE ${OUT} "-- Written by the build from runtime/atomo_bindings.h, atomo.h and atomo_codec.h.\nreturn [==[\n${text}]==]\n")
