/**
 * The convert room: images of a registry turned into Nydus images, checked, and mounted, as `nydusify` does.
 */
export type { ConversionRequest, ConversionWatch, ConvertedImage } from './convert-image.ts'
export { convertImage } from './convert-image.ts'
export type { ConvertErrorCode } from './errors.ts'
export { ConvertError } from './errors.ts'
export type { ConvertedLayer } from './layer.ts'
export { PushRetry } from './push-retry.ts'
