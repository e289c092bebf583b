/** The engine room: decides what to fetch and when; each chunk is fetched once, verified, kept, and then shown. */
export type { Clock } from './clock.ts'
export { DecodePool } from './decode-pool.ts'
export type { EngineErrorCode } from './errors.ts'
export { EngineError } from './errors.ts'
export { HotReader } from './hot-reader.ts'
export type {
  EngineCounters,
  EngineLimits,
  HotImage,
  ImageCacheForm,
  ImageParts,
  ImageReader,
  PrefetchPlan,
} from './image-reader.ts'
export { openImage } from './open-image.ts'
