/**
 * Bundles every tool and every worker into dist/*.cjs (CommonJS starts about 50 ms sooner than an ES module bundle), or into the folder that is given. Each file takes the place of the one before at once: what runs meanwhile always finds
 * one of the two.
 */
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { basename, join, resolve } from 'node:path'
import { build, type Plugin } from 'esbuild'
import { ScriptArguments } from '../test/script-arguments.ts'
import { thirdPartyNotices } from './notices.ts'

const root = join(import.meta.dirname, '..')
const given = new ScriptArguments(
  'build.ts',
  `npm run build [-- FOLDER]

Bundles the tools and their workers into FOLDER, which is theirs alone (default: dist).`,
)
const [folder, ...others] = given.read({}).positionals
if (others.length > 0) given.refuse(`one folder, not ${others.length + 1}`)
const dist = resolve(folder ?? join(root, 'dist'))
const tools = readdirSync(join(root, 'src/cli'), { withFileTypes: true }).flatMap((entry) =>
  entry.isDirectory()
    ? [{ out: entry.name, in: join(root, 'src/cli', entry.name, 'index.ts') }]
    : entry.name.endsWith('.ts') && !entry.name.endsWith('.test.ts') && entry.name.startsWith('nydus')
      ? [{ out: basename(entry.name, '.ts'), in: join(root, 'src/cli', entry.name) }]
      : [],
)
const workers = readdirSync(join(root, 'src'), { recursive: true, encoding: 'utf8' })
  .filter((path) => path.endsWith('-worker.ts'))
  .map((path) => ({ out: basename(path, '.ts'), in: join(root, 'src', path) }))
/** What a FUSE mount never loads. */
const services = { out: 'nydusd-services', in: join(root, 'src/daemon/services/index.ts') }

/** What is used of undici: all of it would be a hundred files to read, before the first request of a start. */
const UNDICI = `
  const { assign } = Object
  assign(require('undici/lib/dispatcher/dispatcher.js').prototype, require('undici/lib/api/index.js'))
  exports.Agent = require('undici/lib/dispatcher/agent.js')
  exports.Pool = require('undici/lib/dispatcher/pool.js')
  exports.ProxyAgent = require('undici/lib/dispatcher/proxy-agent.js')
`
const undici: Plugin = {
  name: 'undici',
  setup(building) {
    building.onResolve({ filter: /^undici$/ }, ({ kind }) =>
      kind === 'entry-point' ? { path: 'undici', namespace: 'parts' } : { path: './undici.cjs', external: true },
    )
    // It is never offered (`allowH2` in src/registry/agents.ts), and Node's part of it loads for a long time.
    building.onResolve({ filter: /\/client-h2(?:\.js)?$/ }, () => ({ path: 'http2', namespace: 'parts' }))
    building.onLoad({ filter: /^http2$/, namespace: 'parts' }, () => ({
      contents: "module.exports = () => { throw new Error('a server speaks HTTP/2, which it was not offered') }",
    }))
    building.onLoad({ filter: /^undici$/, namespace: 'parts' }, () => ({ contents: UNDICI, resolveDir: root }))
  },
}

/** Stands for the build's name until all files of it are known. */
const UNNAMED_BUILD = '@nydus-build@'

const { outputFiles, metafile } = await build({
  write: false,
  metafile: true,
  absWorkingDir: root,
  entryPoints: [...tools, ...workers, services, { out: 'undici', in: 'undici' }],
  plugins: [undici],
  outdir: dist,
  outExtension: { '.js': '.cjs' },
  bundle: true,
  // A third less to read at every start; names stay, for stack traces.
  minifyWhitespace: true,
  platform: 'node',
  target: 'node24',
  format: 'cjs',
  external: ['koffi', '@napi-rs/blake-hash', '@node-rs/crc32'],
  define: {
    'import.meta.url': 'bundleUrl',
    'import.meta.dirname': '__dirname',
    BUILD_ID: JSON.stringify(UNNAMED_BUILD),
  },
  banner: {
    // The cache lies beside the bundle, never in a folder that others may write; the launcher names it for the bundle itself.
    js: "delete process.env.NODE_COMPILE_CACHE;const lazyBuiltin=(name)=>{let it;return new Proxy({},{get:(_target,key)=>(it??=process.getBuiltinModule(name))[key]})};const bundleUrl=require('node:url').pathToFileURL(__filename).href;require('node:module').enableCompileCache?.(require('node:path').join(__dirname,'.cache'));",
  },
  logLevel: 'warning',
})

/** Parts of Node that take milliseconds to load and that many starts never use: loaded with the first use of one of their names. */
const LAZY = /(?<==(?:__toESM\()?)require\("(node:(?:crypto|zlib|child_process|sqlite))"\)/g
const name = createHash('sha256')
for (const { contents } of outputFiles) name.update(contents)
const buildId = name.digest('hex').slice(0, 16)
mkdirSync(dist, { recursive: true })
const bundles = outputFiles.map(({ path, text }) => {
  const isOwn = basename(path) !== 'undici.cjs' // which loads with its first use what it seldom needs
  const code = (isOwn ? text.replace(LAZY, 'lazyBuiltin("$1")') : text).replaceAll(UNNAMED_BUILD, buildId)
  if (isOwn && /require\("node:(?:crypto|zlib|child_process|sqlite)"\)/.test(code))
    throw new Error(
      `${path} loads a part of Node at once that should wait for its first use: LAZY no longer fits what esbuild writes`,
    )
  return { path, code }
})
const notices = { path: join(dist, 'THIRD-PARTY-NOTICES'), code: thirdPartyNotices(root, Object.keys(metafile.inputs)) }
const files = [...bundles, notices].map(({ path, code }) => {
  const beside = `${path}.${process.pid}`
  writeFileSync(beside, code)
  return { path, beside }
})
for (const { path, beside } of files) renameSync(beside, path)

/** Of earlier builds: bundles that there are no more, and what a build that was stopped has left. */
const built = new Set(files.map(({ path }) => basename(path)))
for (const entry of readdirSync(dist, { withFileTypes: true }))
  if (entry.isFile() && !built.has(entry.name)) rmSync(join(dist, entry.name), { force: true })
/** Whoever starts meanwhile begins another one. */
const [cache, old] = [join(dist, '.cache'), join(dist, `.cache.${process.pid}`)]
if (existsSync(cache)) renameSync(cache, old)
for (const entry of readdirSync(dist))
  if (entry.startsWith('.cache.')) rmSync(join(dist, entry), { recursive: true, force: true, maxRetries: 5 })
