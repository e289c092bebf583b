/**
 * The convert room: images of a registry turned into Nydus images, checked, and mounted, as `nydusify` does.
 */
export type { CheckRequest, CheckWatch } from './check/check-image.ts'
export { checkImage } from './check/check-image.ts'
export type { CheckRule, ImageFinding } from './check/finding.ts'
export type { ConversionRequest, ConversionWatch, ConvertedImage } from './conversion.ts'
export { convertImage } from './convert-image.ts'
export type { ConvertErrorCode } from './errors.ts'
export { ConvertError } from './errors.ts'
export type { MountRequest, MountWatch } from './mount-image.ts'
export { mountImage } from './mount-image.ts'
export { PushRetry } from './push-retry.ts'
export { openWithScheme } from './scheme.ts'
