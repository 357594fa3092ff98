"""Every shape of an issuer that can be asked for, as a file says it; each has a golden manifest of its name."""

from __future__ import annotations

from typing import Any

PEM = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----"
"""Stands for a CA's certificate; the server's test puts a real one in its place."""

_ACME = {"server": "letsencrypt-staging", "email": "tls@example.com"}


def _dns01(provider: str, /, **fields: Any) -> dict[str, Any]:
    return {**_ACME, "solvers": [{"dns01": {provider: fields}}]}


SHAPES: dict[str, dict[str, Any]] = {
    "acme-plain": {"server": "letsencrypt"},
    "acme-every-field": {
        "acme": {
            "server": "https://ca.example/directory",
            "email": "tls@example.com",
            "ca_bundle": PEM,
            "account_secret": "old-account",
            "reuse_account": True,
            "eab": {"key_id": "kid-1", "secret": "eab-key/hmac"},
            "profile": "shortlived",
            "preferred_chain": "ISRG Root X1",
            "enable_duration": True,
        }
    },
    "acme-issuer-of-a-namespace": {"kind": "Issuer", "namespace": "istio-system", **_ACME},
    "http01-ways": {
        **_ACME,
        "solvers": [
            {"http01": "virtual-service", "selector": {"match_labels": {"use-http01": "true"}}},
            {
                "http01": {
                    "gateway": {"name": "edge", "namespace": "istio-system", "section": "http", "port": 80},
                    "labels": {"acme-challenge": "true"},
                },
                "selector": {"dns_names": ["shop.example.com"]},
            },
            {"http01": {"ingress_class": "nginx", "service_type": "NodePort"}, "wait_seconds": 30},
            {"http01": {"ingress_name": "shop"}, "selector": {"dns_zones": ["Example.com."]}},
        ],
    },
    "dns01-rfc2136": {
        **_ACME,
        "solvers": [
            {
                "dns01": {
                    "rfc2136": {
                        "nameserver": "192.0.2.53:53",
                        "tsig_key_name": "acme-key",
                        "tsig_algorithm": "hmacsha512",
                        "tsig_secret": "tsig",
                        "protocol": "tcp",
                    }
                },
                "cname_strategy": "follow",
                "selector": {"dns_zones": ["example.com"], "dns_names": ["*.example.com"]},
            }
        ],
    },
    "dns01-cloudflare": _dns01("cloudflare", email="dns@example.com", api_token="cloudflare-api-token"),
    "dns01-cloudflare-key": _dns01("cloudflare", email="dns@example.com", api_key="cloudflare/global"),
    "dns01-route53": _dns01(
        "route53",
        region="eu-central-1",
        hosted_zone_id="Z1",
        role="arn:aws:iam::1:role/dns",
        access_key_id="AKIA0EXAMPLE",
        secret_access_key="route53",
    ),
    "dns01-route53-secrets": _dns01(
        "route53", region="eu-central-1", access_key_id_secret="route53", secret_access_key="route53"
    ),
    "dns01-route53-service-account": _dns01(
        "route53",
        region="eu-central-1",
        role="arn:aws:iam::1:role/dns",
        service_account="cert-manager-dns",
        audiences=["sts.amazonaws.com"],
    ),
    "dns01-clouddns": _dns01("clouddns", project="shop", hosted_zone="example-zone", service_account="gcp/key.json"),
    "dns01-clouddns-workload-identity": _dns01("clouddns", project="shop"),
    "dns01-azuredns": _dns01(
        "azuredns",
        subscription_id="s",
        resource_group="dns",
        hosted_zone="example.com",
        environment="azurepubliccloud",
        zone_type="AzurePublicZone",
        client_id="c",
        tenant_id="t",
        client_secret="azure",
    ),
    "dns01-azuredns-identity": _dns01(
        "azuredns", subscription_id="s", resource_group="dns", identity_client_id="c", identity_tenant_id="t"
    ),
    "dns01-azuredns-identity-resource": _dns01(
        "azuredns", subscription_id="s", resource_group="dns", identity_resource_id="/subscriptions/s/identity"
    ),
    "dns01-acmedns": _dns01("acmedns", host="https://acme-dns.example", account={"name": "acme-dns", "key": "a.json"}),
    "dns01-digitalocean": _dns01("digitalocean", token="digitalocean"),
    "dns01-akamai": _dns01(
        "akamai",
        service_consumer_domain="akab-1.luna.akamaiapis.net",
        client_token="akamai",
        client_secret="akamai",
        access_token="akamai",
    ),
    "dns01-webhook": _dns01(
        "webhook",
        group_name="acme.example.com",
        solver_name="dns",
        config={"apiTokenSecretRef": {"name": "dns-api", "key": "token"}, "ttl": 60},
    ),
    "ca": {
        "ca": {
            "secret": "shop-root",
            "crl_distribution_points": ["http://crl.example.com/root.crl"],
            "ocsp_servers": ["http://ocsp.example.com"],
            "issuing_certificate_urls": ["http://ca.example.com/root.crt"],
        }
    },
    "self-signed": {"selfsigned": {"crl_distribution_points": ["http://crl.example.com/self.crl"]}},
    "vault-token": {
        "vault": {
            "server": "https://vault.example:8200",
            "path": "pki/sign/example",
            "server_name": "vault.internal",
            "vault_namespace": "team",
            "ca_bundle": PEM,
            "auth": {"token": "vault-token"},
        }
    },
    "vault-app-role": {
        "vault": {
            "server": "https://vault.example:8200",
            "path": "pki/sign/example",
            "ca_bundle_secret": "vault-ca",
            "client_certificate_secret": "vault-client",
            "client_key_secret": "vault-client",
            "auth": {"app_role": {"path": "approle", "role_id": "role-1", "secret": "vault-role"}},
        }
    },
    "vault-kubernetes": {
        "vault": {
            "server": "https://vault.example:8200",
            "path": "pki/sign/example",
            "auth": {
                "kubernetes": {
                    "role": "cert-manager",
                    "mount_path": "/v1/auth/kubernetes",
                    "service_account": "vault-issuer",
                    "audiences": ["vault"],
                }
            },
        }
    },
    "vault-kubernetes-secret": {
        "vault": {
            "server": "https://vault.example:8200",
            "path": "pki/sign/example",
            "auth": {"kubernetes": {"role": "cert-manager", "secret": "issuer-token"}},
        }
    },
    "vault-client-certificate": {
        "vault": {
            "server": "https://vault.example:8200",
            "path": "pki/sign/example",
            "auth": {"client_certificate": {"mount_path": "/v1/auth/cert", "secret": "vault-login", "name": "web"}},
        }
    },
    "venafi-self-hosted": {
        "venafi": {
            "zone": "DevOps\\Web",
            "tpp": {"url": "https://tpp.example/vedsdk", "credentials": "tpp", "ca_bundle": PEM},
        }
    },
    "venafi-self-hosted-ca-secret": {
        "venafi": {
            "zone": "DevOps\\Web",
            "tpp": {"url": "https://tpp.example/vedsdk", "credentials": "tpp", "ca_bundle_secret": "tpp-ca"},
        }
    },
    "venafi-saas": {
        "venafi": {"zone": "Shop\\Default", "cloud": {"url": "https://api.venafi.cloud", "api_token": "venafi"}}
    },
    "venafi-ngts": {
        "venafi": {
            "zone": "Shop\\Default",
            "ngts": {
                "tsg_id": "1234",
                "url": "https://ngts.example",
                "token_endpoint": "https://auth.example/token",
                "credentials": "ngts",
            },
        }
    },
}


def document(name: str, *, pem: str = PEM) -> dict[str, Any]:
    """The shape as a file says it, with `pem` for its CA's certificate."""

    def filled(part: Any) -> Any:
        if isinstance(part, dict):
            return {key: filled(value) for key, value in part.items()}
        return pem if part == PEM else part

    return {"name": name, **filled(SHAPES[name])}
