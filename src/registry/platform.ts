import type { Descriptor, ImageIndex, Platform } from './manifest.ts'

/** Parses `os/arch[/variant]` (also `arch` alone), normalised as containerd does: `x86_64` is `amd64`, `arm64/v8` is `arm64`. */
export function parsePlatform(_text: string): Platform {
  throw new Error('not yet')
}
export function formatPlatform(_platform: Platform): string {
  throw new Error('not yet')
}
/** The platform of this machine. */
export function hostPlatform(): Platform {
  throw new Error('not yet')
}
/** True when an image for `offered` is exactly for `wanted` (both normalised first). */
export function samePlatform(_offered: Platform, _wanted: Platform): boolean {
  throw new Error('not yet')
}
/**
 * The entry of an index to run on `wanted`, by containerd's rules: exact first, then older variants of arm that the machine runs too
 * (arm64 takes no 32-bit arm here). Undefined when nothing fits.
 */
export function selectPlatform(_index: ImageIndex, _wanted: Platform): Descriptor | undefined {
  throw new Error('not yet')
}
