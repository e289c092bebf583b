/** Configuration documents of nydusd, for tools that read blobs as nydusd would. */
export { openSource } from '../image-backend.ts'
export { parseConfig } from './document.ts'
export { blobSourceOf } from './settings.ts'
