/** Images that the kernel shows by itself, from a full cache. */
export { configuredWish } from './configured.ts'
export { checkImage } from './image-check.ts'
export type { LentImage } from './kernel-images.ts'
export { KernelImages } from './kernel-images.ts'
export type { KernelImageWish } from './probe.ts'
export { whyNoKernelImages } from './probe.ts'
