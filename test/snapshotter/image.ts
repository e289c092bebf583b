/** The image that containers of the snapshotter's tests run: programs of this machine, and files to read. */
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { readFileSync, realpathSync } from 'node:fs'
import { convert, type EntryText, pushImage, tarOf, type TestWorld } from '../../src/convert/testing.ts'

const PROGRAMS = ['sh', 'cat', 'dd', 'sha256sum', 'sleep']
const DIRECTORIES = ['data', 'dev', 'etc', 'proc', 'run', 'sys', 'tmp']

/** Pushes it as `app:plain`, and converted as `app:nydus`. Gives what `sha256sum /data/*` prints in a container of it. */
export async function pushTestImage(world: TestWorld): Promise<string> {
  const files = data()
  const directories = DIRECTORIES.map((path): EntryText => ({ path: `${path}/`, type: 'directory' }))
  const layers = [await tarOf([...directories, ...programs()]), await tarOf(files)]
  await pushImage(world.repository('app:plain'), layers)
  await convert(world, 'app', { prefetchPaths: [] })
  return files.map(({ path, content = '' }) => `${digest(content)}  /${path}\n`).join('')
}

/** Files of the host as entries of an image: programs, and the libraries that they load. */
function programs(): EntryText[] {
  const files = new Map<string, string>()
  for (const name of PROGRAMS) {
    const path = execFileSync('sh', ['-c', `command -v ${name}`], { encoding: 'utf8' }).trim()
    files.set(`bin/${name}`, path)
    for (const [, library = ''] of execFileSync('ldd', [path], { encoding: 'utf8' }).matchAll(/(\/\S+) \(0x/g))
      files.set(library.slice(1), library)
  }
  return [...files].map(([path, from]) => ({
    path,
    type: 'file',
    mode: 0o755,
    content: readFileSync(realpathSync(from)),
  }))
}

/** Files of many sizes whose bytes look random. */
function data(): EntryText[] {
  return Array.from({ length: 24 }, (_, index) => {
    const words = new Uint32Array(1 + ((index * index * index * 25) | 0))
    let word = index + 1
    for (let at = 0; at < words.length; at += 1) words[at] = word = Math.imul(word, 0x9e37_79b1) ^ (word >>> 13)
    return { path: `data/${String(index).padStart(2, '0')}`, type: 'file', content: new Uint8Array(words.buffer) }
  })
}

function digest(content: string | Uint8Array): string {
  return createHash('sha256').update(content).digest('hex')
}
