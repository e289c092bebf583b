/** koffi, by which Node calls libraries of the system. A room of its own beside the kernel's: decode threads need nothing else of it. */
import { createRequire } from 'node:module'

/**
 * The module itself, where npm puts it. The package around it looks for it in many places and reads Node's own file to learn its C library, which takes longer than all the rest, in every thread; it is asked
 * where the module is not found. Throws when there is none.
 */
export function nativeModule(): unknown {
  const { platform, arch } = process
  const require = createRequire(import.meta.url)
  try {
    return require(`@koromix/koffi-${platform}-${arch}/${platform}_${arch}/koffi.node`)
  } catch {
    return require('koffi')
  }
}
