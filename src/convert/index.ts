/**
 * The convert room: images of a registry turned into Nydus images, checked, and mounted, as `nydusify` does.
 */
export type { ConvertErrorCode } from './errors.ts'
export { ConvertError } from './errors.ts'
