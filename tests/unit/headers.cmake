# Compile every header by itself, twice over: it includes what its declarations use, and
# it can be included again. Run as: cmake -D CC=... -D ROOT=... -P headers.cmake
file(GLOB headers RELATIVE ${ROOT} ${ROOT}/ckpt/*.h ${ROOT}/ckpt/*/*.h ${ROOT}/reshard/*.h
  ${ROOT}/cli/*.h ${ROOT}/tests/support/*.h)
# A piece of code that its three users include behind their definitions, not a header.
list(REMOVE_ITEM headers ckpt/base/hash_lanes.h)
list(LENGTH headers count)
set(failed "")
foreach(header ${headers})
  execute_process(
    COMMAND ${CC} -std=gnu11 -D_GNU_SOURCE -I${ROOT} -Wall -Wextra -Werror -Wno-unused-function
      -fsyntax-only -include ${header} -include ${header} -x c /dev/null
    RESULT_VARIABLE code ERROR_VARIABLE words WORKING_DIRECTORY ${ROOT})
  if(NOT code EQUAL 0)
    list(APPEND failed ${header})
    message("${words}")
  endif()
endforeach()
if(count EQUAL 0)
  message(FATAL_ERROR "no headers in ${ROOT}")
endif()
if(failed)
  message(FATAL_ERROR "these do not compile alone: ${failed}")
endif()
message("${count} headers compile alone")
