/** A `.deb` and an OCI layout of this checkout in `out/`; `push` gives the image to a registry. */
import { mkdirSync } from 'node:fs'
import { join, relative } from 'node:path'
import { ScriptArguments } from '../test/script-arguments.ts'
import { writeDeb } from './package/deb.ts'
import { writeLayout } from './package/oci.ts'
import { pushLayout } from './package/push.ts'
import { readManifest } from './package/tree.ts'

const root = join(import.meta.dirname, '..')
const line = new ScriptArguments(
  'package',
  `npm run package [-- deb | oci | push HOST/NAME:TAG]

Writes a Debian package and an OCI layout of this checkout to out/ (default: both).

  deb     the package alone
  oci     the layout alone
  push    the layout, and gives the image to a registry
  --help  this text`,
)
const [what = 'all', image, ...more] = line.read({}).positionals
if (!['all', 'deb', 'oci', 'push'].includes(what)) line.refuse(`there is no package ${JSON.stringify(what)}`)
if (what === 'push' && image === undefined) line.refuse('where is it to be pushed? Give HOST/NAME:TAG')
const extra = what === 'push' ? more[0] : image
if (extra !== undefined) line.refuse(`what is ${JSON.stringify(extra)}?`)
const out = join(root, 'out')
mkdirSync(out, { recursive: true })
const shown = (path: string): string => relative(process.cwd(), path) || path
if (what === 'all' || what === 'deb') console.log(`package  ${shown(await writeDeb(root, out))}`)
if (what !== 'deb') {
  const { folder, digest } = await writeLayout(root, join(out, 'image'), readManifest(root).version)
  console.log(`image    ${shown(folder)} (OCI layout, ${digest})`)
  if (image !== undefined) console.log(`pushed   ${image}@${await pushLayout(folder, image)}`)
}
