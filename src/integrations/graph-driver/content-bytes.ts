import { namesIn, statOf } from './changes.ts'

/** Bytes of all files in a directory, those with several names once. The path is latin1 text. */
export function contentBytes(directory: string): number {
  const seen = new Set<string>()
  let sum = 0
  const open = [directory]
  for (let path = open.pop(); path !== undefined; path = open.pop())
    for (const name of namesIn(path)) {
      const at = `${path}/${name}`
      const stats = statOf(at)
      if (stats?.isDirectory() === true) open.push(at)
      if (stats?.isFile() !== true) continue
      const key = `${stats.dev}:${stats.ino}`
      if (stats.nlink > 1n && seen.has(key)) continue
      seen.add(key)
      sum += Number(stats.size)
    }
  return sum
}
