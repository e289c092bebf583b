import { readFile } from 'node:fs/promises'

/** Names of owners on this machine; empty for those that have none. */
export interface HostNames {
  user(uid: number): string
  group(gid: number): string
}

/** Reads the machine's own files of users and groups; a machine without them has no names. */
export async function readHostNames(): Promise<HostNames> {
  const users = await namesIn('/etc/passwd')
  const groups = await namesIn('/etc/group')
  return { user: (uid) => users.get(uid) ?? '', group: (gid) => groups.get(gid) ?? '' }
}

/** Both files have lines `name:password:number:…`; the first of a number counts. */
async function namesIn(path: string): Promise<Map<number, string>> {
  const names = new Map<number, string>()
  for (const line of (await readIfThere(path)).split('\n')) {
    const [name = '', , number = ''] = line.split(':')
    if (/^\d+$/.test(number) && !names.has(Number(number))) names.set(Number(number), name)
  }
  return names
}

async function readIfThere(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return ''
    throw error
  }
}
