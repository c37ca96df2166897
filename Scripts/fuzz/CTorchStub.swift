// Stands in for the C header of libtorch's interface, of which the readers of tensor files need only this.
package enum CTDType { case uint8, int8, int16, int32, int64, float16, float32, float64, bool, bfloat16 }
package let CT_UINT8 = CTDType.uint8
package let CT_INT8 = CTDType.int8
package let CT_INT16 = CTDType.int16
package let CT_INT32 = CTDType.int32
package let CT_INT64 = CTDType.int64
package let CT_FLOAT16 = CTDType.float16
package let CT_FLOAT32 = CTDType.float32
package let CT_FLOAT64 = CTDType.float64
package let CT_BOOL = CTDType.bool
package let CT_BFLOAT16 = CTDType.bfloat16
