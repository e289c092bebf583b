/** `npm run package [-- deb|oci|push IMAGE]`: a `.deb` and an OCI layout of this checkout in `out/`; `push` gives the image to a registry. */
import { mkdirSync } from 'node:fs'
import { join, relative } from 'node:path'
import { writeDeb } from './package/deb.ts'
import { writeLayout } from './package/oci.ts'
import { pushLayout } from './package/push.ts'
import { readManifest } from './package/tree.ts'

const root = join(import.meta.dirname, '..')
const [what = 'all', image, ...more] = process.argv.slice(2)
const isKnown = ['all', 'deb', 'oci', 'push'].includes(what)
if (!isKnown || (what === 'push') !== (image !== undefined) || more.length > 0) {
  console.error('usage: npm run package [-- deb | oci | push HOST/NAME:TAG]')
  process.exit(2)
}
const out = join(root, 'out')
mkdirSync(out, { recursive: true })
const shown = (path: string): string => relative(process.cwd(), path) || path
if (what === 'all' || what === 'deb') console.log(`package  ${shown(await writeDeb(root, out))}`)
if (what !== 'deb') {
  const { folder, digest } = await writeLayout(root, join(out, 'image'), readManifest(root).version)
  console.log(`image    ${shown(folder)} (OCI layout, ${digest})`)
  if (image !== undefined) console.log(`pushed   ${image}@${await pushLayout(folder, image)}`)
}
