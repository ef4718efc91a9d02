#!/usr/bin/env python3
"""Write f8_values.h: the value of every code of every 8-bit float, from ml_dtypes."""
import os

import ml_dtypes
import numpy as np

TYPES = [("MIX_F8_E5M2", ml_dtypes.float8_e5m2), ("MIX_F8_E4M3", ml_dtypes.float8_e4m3fn),
         ("MIX_F8_E8M0", ml_dtypes.float8_e8m0fnu),
         ("MIX_F8_E4M3FNUZ", ml_dtypes.float8_e4m3fnuz),
         ("MIX_F8_E5M2FNUZ", ml_dtypes.float8_e5m2fnuz)]


def main():
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "f8_values.h")
    with open(path, "w") as out:
        out.write("/* f8_values.h - every 8-bit float as the bits of an F32, from ml_dtypes "
                  f"{ml_dtypes.__version__};\n * NaN is 7fc00000. Made by make_f8_values.py. "
                  "*/\n\nstatic const struct {\n    enum mix_dtype dtype;\n"
                  "    uint32_t f32[256];\n} f8_values[] = {\n")
        for name, dtype in TYPES:
            values = np.arange(256, dtype=np.uint8).view(dtype).astype(np.float32)
            bits = np.where(np.isnan(values), 0x7fc00000, values.view(np.uint32))
            out.write(f"    {{ {name}, {{\n")
            for i in range(0, 256, 8):
                out.write("        " + " ".join(f"0x{b:08x}," for b in bits[i:i + 8]) + "\n")
            out.write("    } },\n")
        out.write("};\n")


if __name__ == "__main__":
    main()
