/** Values that the original client (dragonfly-client-util 1.3.4) gives. */

/** Addresses and their tasks. */
export const TASK_IDS: ReadonlyArray<readonly [address: string, id: string | undefined]> = [
  [
    'http://registry.example/v2/library/node/blobs/sha256:a3ed95caeb02ffe68cdd9fd84406680ae93d633cb16422d00e8a7c22955b46d4',
    'a3ed95caeb02ffe68cdd9fd84406680ae93d633cb16422d00e8a7c22955b46d4',
  ],
  [
    'https://registry.example:5000/v2/a/b/c/blobs/sha256:a3ed95caeb02ffe68cdd9fd84406680ae93d633cb16422d00e8a7c22955b46d4',
    'a3ed95caeb02ffe68cdd9fd84406680ae93d633cb16422d00e8a7c22955b46d4',
  ],
  [
    'https://registry.example/v2/a/blobs/sha256:a3ed95caeb02ffe68cdd9fd84406680ae93d633cb16422d00e8a7c22955b46d4?ns=docker.io&x=1',
    'a3ed95caeb02ffe68cdd9fd84406680ae93d633cb16422d00e8a7c22955b46d4',
  ],
  [
    'https://registry.example/v2/a/blobs/sha256:a3ed95caeb02ffe68cdd9fd84406680ae93d633cb16422d00e8a7c22955b46d4?',
    'a3ed95caeb02ffe68cdd9fd84406680ae93d633cb16422d00e8a7c22955b46d4',
  ],
  [
    'https://registry.example/v2/a/blobs/sha512:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb',
    'bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb',
  ],
  ['https://registry.example/v2/a/blobs/crc32:1234567890', '1234567890'],
  [
    'https://registry.example/v2/a/blobs/sha256:A3ED95CAEB02FFE68CDD9FD84406680AE93D633CB16422D00E8A7C22955B46D4',
    'A3ED95CAEB02FFE68CDD9FD84406680AE93D633CB16422D00E8A7C22955B46D4',
  ],
  [
    'https://registry.example/v2/a/blobs/sha256:3ed95caeb02ffe68cdd9fd84406680ae93d633cb16422d00e8a7c22955b46d4',
    undefined,
  ],
  [
    'https://registry.example/v2/a/blobs/md5:a3ed95caeb02ffe68cdd9fd84406680ae93d633cb16422d00e8a7c22955b46d4',
    undefined,
  ],
  ['https://registry.example/v2/a/blobs/uploads', undefined],
  [
    'https://registry.example/v2/a/blobs/sha256:a3ed95caeb02ffe68cdd9fd84406680ae93d633cb16422d00e8a7c22955b46d4/x',
    undefined,
  ],
  [
    'https://registry.example/v2/a/blobs/sha256:a3ed95caeb02ffe68cdd9fd84406680ae93d633cb16422d00e8a7c22955b46d4#part',
    undefined,
  ],
  ['https://registry.example/v2/a/blobs/', '3e60770d42af2d89665bf50c9e788d12775b064b2a0b7b83a80dee37e32e8518'],
  [
    'https://registry.example/v2/a/blobs/x/v2/b/blobs/sha256:a3ed95caeb02ffe68cdd9fd84406680ae93d633cb16422d00e8a7c22955b46d4',
    'a3ed95caeb02ffe68cdd9fd84406680ae93d633cb16422d00e8a7c22955b46d4',
  ],
  [
    'https://registry.example/v2//blobs/sha256:a3ed95caeb02ffe68cdd9fd84406680ae93d633cb16422d00e8a7c22955b46d4',
    'a3ed95caeb02ffe68cdd9fd84406680ae93d633cb16422d00e8a7c22955b46d4',
  ],
  [
    'https://registry.example/v2/a/manifests/sha256:a3ed95caeb02ffe68cdd9fd84406680ae93d633cb16422d00e8a7c22955b46d4',
    '9525764a10ee61f02210bdd5edcea32ae479a6732fb8683a1478a228a90978ec',
  ],
  ['https://example.com', '457b4328cde278e422c9e243f7bfd1e97f511fec43a80f535cf6b0ef6b086776'],
  ['https://example.com/', '457b4328cde278e422c9e243f7bfd1e97f511fec43a80f535cf6b0ef6b086776'],
  ['https://example.com/a/', 'b73c4cff1e9efb801dde0912c8d29fbd05dc68eaf88ace1fd41dfb03c0c3f774'],
  ['https://example.com//', '83428bf421fee9c2f4ec709e4e5dcaa8b08d184781c2fb3e6b803db2e0606090'],
  ['https://example.com/?', '457b4328cde278e422c9e243f7bfd1e97f511fec43a80f535cf6b0ef6b086776'],
  ['https://example.com/a?', 'c058b4454fdd8b341e618fe172efddeac19e1bb263022380725d72ed62285d61'],
  ['https://example.com/?a=1', '3fcf5703e74d955da85a442ec305c13163e496df369db49d790573b45f37396f'],
  ['https://example.com/?x=/', '7de2551e2af6aa8e8731051911712eef11430512519ca529c03cdae5b12f9420'],
  ['https://example.com/#a/', 'aff2bd93992bb82c2da5e7f3a6bf197f21af80d852385d0ebc89439c4be6186e'],
  ['https://example.com/#/', 'c9bf5f18875f9cdda2bf269fabea666b61e0318431bc4961acbf4b68e4681516'],
  [
    'http://bucket.oss-cn.example/images/0123456789abcdef',
    '51ea13a3de00327e68f328187a9956a4af66009ed0aed399a920bb4b5c6a86d3',
  ],
  [
    'http://127.0.0.1:9000/images/0123456789abcdef?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature=00ff',
    'b7af400717977c4e1fecb5c0882e888efb6f1e512f5f321f34970b0272fbe5ac',
  ],
  [
    'https://cdn.example/blob?Expires=1&Signature=a%2Bb%2Fc%3D&Key-Pair-Id=K',
    'ee02c6210ed1d35adf6c17afb86efa6913109d22df47d6eca88f1ac55085961b',
  ],
  [
    "https://cdn.example/blob?q=a+b&r=a%20b&s=~*-._!'()",
    'fc9d9e4ec349e334fe6ca1d1d95a961b3839f4b465775e54b40a8491d10c8eec',
  ],
  [
    'https://cdn.example/blob?a&b=&=c&&d=%zz&e=%C3%A9&f=é',
    'c56f2f18ead5ad61b4c34a60853d3c1eed308f2bf3dfbd6dd8248cc71ea6212f',
  ],
  ['https://cdn.example/blob?a=%ff%fe', '6d7842c6f0644493bf4ff77d70e2aad5abd5961b387728d248a134bd968a55ec'],
  ['HTTPS://CDN.Example:443/A%2fB/../c?x=1', 'bb812c0c9e8138f5f7e4a45da54a93de94abe0a90129b69c36ba3cfd3acadaaf'],
  [
    'http://user:pa%20ss@cdn.example:80/x y?z=1#frag ment',
    '83a4b7d3790b55d209775e145ae6d70771b2de9102bb90e3643c614ff33bb4d5',
  ],
  ['http://[2001:DB8::1]:8080/x?y[]=1', '724e8b4cf8ca171a768ce96efb300898b5e6a200a022c1fc077b09089ab0d911'],
  ['http://bücher.example/straße?ü=ö', '49e8362c707904d413b2ff849878969646ec0b3894da300c092914549d157e68'],
]

/** Names of peers, and which of them each key belongs to: the first twelve tasks above that have an id, then `task-0` to `task-39`, then ``, then `ü`. */
export const CHOICES: ReadonlyArray<readonly [names: readonly string[], choices: readonly number[]]> = [
  [
    ['seed-0'],
    [
      0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
      0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ],
  ],
  [
    ['seed-0', 'seed-1'],
    [
      1, 1, 1, 1, 0, 1, 0, 0, 1, 1, 1, 0, 0, 0, 1, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 1, 0, 0, 1, 0, 0, 0, 0,
      1, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 1,
    ],
  ],
  [
    ['seed-0', 'seed-1', 'seed-2'],
    [
      2, 2, 2, 2, 0, 1, 0, 0, 2, 2, 1, 0, 0, 0, 2, 0, 1, 2, 0, 1, 2, 2, 2, 2, 0, 0, 0, 2, 0, 1, 2, 0, 2, 2, 0, 0, 0, 0,
      1, 0, 0, 1, 0, 0, 2, 0, 2, 0, 0, 0, 2, 2, 1, 1,
    ],
  ],
  [
    [
      'd7y-seed-client-0',
      'd7y-seed-client-1',
      'd7y-seed-client-2',
      'd7y-seed-client-3',
      'd7y-seed-client-4',
      'd7y-seed-client-5',
      'd7y-seed-client-6',
    ],
    [
      3, 3, 3, 3, 1, 6, 5, 2, 3, 3, 2, 5, 5, 5, 0, 3, 2, 1, 0, 2, 3, 3, 6, 3, 6, 1, 1, 0, 1, 0, 6, 6, 4, 2, 1, 6, 4, 6,
      5, 2, 2, 2, 4, 5, 2, 1, 1, 4, 5, 2, 1, 4, 1, 2,
    ],
  ],
  [
    [
      '',
      'a',
      'é',
      '名前',
      'with space',
      'x\ny',
      "quote'",
      '0123456',
      '01234567',
      '012345678',
      'a-name-that-is-a-good-deal-longer-than-eight-bytes.node.example',
    ],
    [
      2, 2, 2, 2, 0, 7, 3, 6, 2, 2, 7, 9, 3, 10, 5, 7, 6, 8, 9, 0, 7, 5, 6, 7, 10, 3, 5, 7, 8, 3, 3, 10, 6, 10, 4, 7,
      10, 7, 1, 8, 8, 7, 3, 7, 6, 0, 1, 4, 0, 1, 0, 7, 4, 8,
    ],
  ],
]
