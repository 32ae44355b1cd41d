/* A security key in software, for tests: what ssh-keygen loads as SSH_SK_PROVIDER (OpenSSH, PROTOCOL.u2f and version 10 of its
 * middleware interface). The key handle is the private key, so it protects nothing.
 *
 * Somebody "touches" it whenever ssh-keygen asks for that. With VOUCHSAFE_TEST_UNTOUCHED in the environment nobody does, and it
 * says so in the flags, which it signs: a key that does not insist. */
#include <openssl/bn.h>
#include <openssl/ec.h>
#include <openssl/ecdsa.h>
#include <openssl/evp.h>
#include <openssl/obj_mac.h>
#include <openssl/rand.h>
#include <openssl/sha.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { INTERFACE = 0x000a0000, ECDSA_P256 = 0, ED25519 = 1, TOUCH = 1, FAILED = -1, UNSUPPORTED = -2, SCALAR = 32 };

struct enrolled {
  uint8_t flags;
  uint8_t *public_key;
  size_t public_key_len;
  uint8_t *key_handle;
  size_t key_handle_len;
  uint8_t *signature;
  size_t signature_len;
  uint8_t *certificate;
  size_t certificate_len;
  uint8_t *authdata;
  size_t authdata_len;
};

struct answer {
  uint8_t flags;
  uint32_t counter;
  uint8_t *r;
  size_t r_len;
  uint8_t *s;
  size_t s_len;
};

struct option;
struct resident;

static uint8_t *copy(const uint8_t *bytes, size_t length) {
  uint8_t *made = malloc(length ? length : 1);
  if (made && length) memcpy(made, bytes, length);
  return made;
}

static EC_KEY *p256(const uint8_t *scalar) {
  EC_KEY *key = EC_KEY_new_by_curve_name(NID_X9_62_prime256v1);
  BIGNUM *number = BN_bin2bn(scalar, SCALAR, NULL);
  EC_POINT *point = key ? EC_POINT_new(EC_KEY_get0_group(key)) : NULL;
  if (!number || !point || !EC_POINT_mul(EC_KEY_get0_group(key), point, number, NULL, NULL, NULL) ||
      !EC_KEY_set_private_key(key, number) || !EC_KEY_set_public_key(key, point)) {
    EC_KEY_free(key);
    key = NULL;
  }
  BN_free(number);
  EC_POINT_free(point);
  return key;
}

uint32_t sk_api_version(void) { return INTERFACE; }

int sk_enroll(uint32_t alg, const uint8_t *challenge, size_t challenge_len, const char *application, uint8_t flags,
              const char *pin, struct option **options, struct enrolled **out) {
  (void)challenge, (void)challenge_len, (void)application, (void)pin, (void)options;
  uint8_t secret[SCALAR], public_key[65];
  size_t length = sizeof(public_key);
  if (RAND_bytes(secret, sizeof(secret)) != 1) return FAILED;
  if (alg == ED25519) {
    EVP_PKEY *key = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, secret, sizeof(secret));
    if (!key || EVP_PKEY_get_raw_public_key(key, public_key, &length) != 1) return FAILED;
    EVP_PKEY_free(key);
  } else if (alg == ECDSA_P256) {
    secret[0] = 0; /* Certainly below the order of the curve. */
    EC_KEY *key = p256(secret);
    if (!key) return FAILED;
    length = EC_POINT_point2oct(EC_KEY_get0_group(key), EC_KEY_get0_public_key(key), POINT_CONVERSION_UNCOMPRESSED,
                                public_key, sizeof(public_key), NULL);
    EC_KEY_free(key);
  } else {
    return UNSUPPORTED;
  }
  struct enrolled *made = calloc(1, sizeof(*made));
  if (!made) return FAILED;
  made->flags = flags;
  made->public_key = copy(public_key, length);
  made->public_key_len = length;
  made->key_handle = copy(secret, sizeof(secret));
  made->key_handle_len = sizeof(secret);
  /* Nobody here looks at the attestation. */
  made->signature = copy((const uint8_t *)"none", made->signature_len = 4);
  made->certificate = copy((const uint8_t *)"none", made->certificate_len = 4);
  made->authdata = copy((const uint8_t *)"none", made->authdata_len = 4);
  *out = made;
  return 0;
}

int sk_sign(uint32_t alg, const uint8_t *data, size_t data_len, const char *application, const uint8_t *handle,
            size_t handle_len, uint8_t flags, const char *pin, struct option **options, struct answer **out) {
  (void)pin, (void)options;
  if (handle_len != SCALAR) return FAILED;
  struct answer *made = calloc(1, sizeof(*made));
  if (!made) return FAILED;
  made->flags = getenv("VOUCHSAFE_TEST_UNTOUCHED") ? 0 : flags & TOUCH;
  made->counter = 7;
  /* What is signed: the application's hash, the flags, the counter, the message's hash. */
  uint8_t text[32 + 1 + 4 + 32] = {0};
  SHA256((const uint8_t *)application, strlen(application), text);
  text[32] = made->flags;
  text[36] = 7;
  SHA256(data, data_len, text + 37);
  if (alg == ED25519) {
    uint8_t signature[64];
    size_t length = sizeof(signature);
    EVP_PKEY *key = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, handle, handle_len);
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    if (!key || !context || EVP_DigestSignInit(context, NULL, NULL, NULL, key) != 1 ||
        EVP_DigestSign(context, signature, &length, text, sizeof(text)) != 1)
      return FAILED;
    EVP_MD_CTX_free(context);
    EVP_PKEY_free(key);
    made->r = copy(signature, made->r_len = length);
  } else if (alg == ECDSA_P256) {
    uint8_t digest[32], number[SCALAR];
    EC_KEY *key = p256(handle);
    SHA256(text, sizeof(text), digest);
    ECDSA_SIG *signature = key ? ECDSA_do_sign(digest, sizeof(digest), key) : NULL;
    if (!signature) return FAILED;
    made->r_len = (size_t)BN_bn2bin(ECDSA_SIG_get0_r(signature), number);
    made->r = copy(number, made->r_len);
    made->s_len = (size_t)BN_bn2bin(ECDSA_SIG_get0_s(signature), number);
    made->s = copy(number, made->s_len);
    ECDSA_SIG_free(signature);
    EC_KEY_free(key);
  } else {
    return UNSUPPORTED;
  }
  *out = made;
  return 0;
}

int sk_load_resident_keys(const char *pin, struct option **options, struct resident ***out, size_t *count) {
  (void)pin, (void)options;
  *out = NULL;
  *count = 0;
  return UNSUPPORTED;
}
