import { nativeModule } from '../kernel/native-module/index.ts'

interface Koffi {
  address(of: Uint8Array): bigint
  view(address: bigint, bytes: number): ArrayBuffer
}

let koffi: Koffi | undefined
let isAbsent = false

/** Views keep the memory that they show. */
const kept = new WeakMap<ArrayBuffer, SharedArrayBuffer>()

/**
 * Memory shared between threads, as this thread's own: V8 copies shared memory word by word, five times slower, and native libraries refuse it. Who uses
 * the view sees to it that no two threads touch a byte at once, as with the shared memory itself. Without koffi, a view of the shared memory.
 */
export function plainBytes(memory: SharedArrayBuffer): Uint8Array {
  const shared = new Uint8Array(memory)
  if (isAbsent || memory.byteLength === 0) return shared
  try {
    koffi ??= nativeModule() as Koffi
    const view = koffi.view(koffi.address(shared), memory.byteLength)
    kept.set(view, memory)
    return new Uint8Array(view)
  } catch {
    isAbsent = true
    return shared
  }
}
