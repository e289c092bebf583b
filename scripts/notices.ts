/** What the licenses of bundled libraries ask for: their text, beside the bundles. */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'

const FOLDER = 'node_modules/'
const LICENSE_FILE = /^(?:licen[cs]e|copying|notice)(?:[.-].*)?$/i

/**
 * Name, version and license of each package that has one of the `inputs` (paths from `root`), with the text of its license files. Throws for one that names no license: nobody may
 * pass it on.
 */
export function thirdPartyNotices(root: string, inputs: readonly string[]): string {
  const folders = new Set(inputs.map(packageFolder).filter((folder) => folder !== undefined))
  return [...folders]
    .sort()
    .map((folder) => notice(join(root, folder)))
    .join(`${'-'.repeat(80)}\n`)
}

/** The innermost package that a file belongs to. */
function packageFolder(path: string): string | undefined {
  const at = path.lastIndexOf(FOLDER)
  if (at < 0) return undefined
  const [scope = '', name = ''] = path.slice(at + FOLDER.length).split('/')
  return path.slice(0, at + FOLDER.length) + (scope.startsWith('@') ? `${scope}/${name}` : scope)
}

function notice(folder: string): string {
  const { name, version, license } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8')) as Record<
    string,
    unknown
  >
  if (typeof license !== 'string' || license === 'UNLICENSED')
    throw new Error(`${folder}: its package.json names no license, so that it cannot be a part of bundles`)
  const texts = readdirSync(folder)
    .filter((file) => LICENSE_FILE.test(file))
    .sort()
    .map((file) => `\n${readFileSync(join(folder, file), 'utf8').trim()}\n`)
  return `${String(name)} ${String(version)} (${license})\n${texts.join('')}`
}
