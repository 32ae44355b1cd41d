//! From a permit to the values: all or nothing. The only file that knows both policies and stores.
//!
//! A [`Permit`] says that the policy granted and that every audit sink has accepted the request; it is consumed here, and
//! nothing else fetches for a child. What comes out is complete: every granted secret has its value, or was absent and not
//! required. `required = false` excuses absence only: a store that fails, fails everything.

mod error;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant, SystemTime};

pub use error::ResolveError;

use crate::agent::client::Received;
use crate::audit::{Permit, SecretNote};
use crate::error::Error;
use crate::name::{ItemName, StoreName, VariableName, escape, show};
use crate::policy::eval::Grant;
use crate::policy::model::{
    Binding, Bundle, DocumentFormat, ItemRef, JsonPointer, NameStyle, OnExpired, Policy, Source, Stage,
    Store as StoreModel,
};
use crate::policy::reserved;
use crate::policy::template::{RenderError, Template};
use crate::secret::Secret;
use crate::store::ssm::apart_of;
use crate::store::{Answer, Fetched, Store, Wanted};

/// Opens the store of a name. Called once for each store that is needed, and for no other.
pub type OpenStore<'o> = dyn FnMut(&StoreName) -> Result<Box<dyn Store + 'o>, Error> + 'o;

/// Every granted value. Made only by [`resolve`], from what the agent's client received, and from
/// what a child before was given. No `Debug`: it holds plaintext.
///
/// ```compile_fail,E0451
/// let resolved = vouchsafe::resolve::Resolved { values: vec![], parts: vec![] };
/// ```
pub struct Resolved {
    values: Vec<Value>,
    parts: Vec<SecretNote>,
}

/// One value to inject, and what the audit record says of it.
pub struct Value {
    /// The variable.
    pub name: VariableName,
    /// The plaintext.
    pub secret: Secret,
    /// Where it came from; a template's parts are listed besides.
    pub note: SecretNote,
}

impl Resolved {
    /// What the agent has resolved, under a permit of its own.
    pub(crate) fn of_agent(received: Received) -> Self {
        Self { values: received.into_values(), parts: Vec::new() }
    }

    /// What a child before was given, if `grant` still allows that and nothing less: nobody is asked for it again.
    ///
    /// # Errors
    /// What is granted are other names by now, or a value may not be used for so long.
    pub(crate) fn of_before(grant: &Grant<'_>, values: Vec<Value>) -> Result<Self, ResolveError> {
        let bindings = &grant.policy().secrets;
        let has = |name: &VariableName| values.iter().any(|value| value.name == *name);
        let is_granted = |name: &VariableName| {
            grant.names().contains(name)
                || (!bindings.contains_key(name) && grant.asks_bundle_for(name) && grant.covers_from_bundle(name))
        };
        let is_needed = |name: &&VariableName| bindings.get(*name).is_none_or(|binding| binding.required);
        let expected = grant.names().iter().chain(grant.expected_of_bundles()).filter(is_needed);
        let too_few = expected.filter(|name| !has(name));
        let too_many = values.iter().map(|value| &value.name).filter(|name| !is_granted(name));
        let others: Vec<_> = too_few.chain(too_many).cloned().collect();
        if !others.is_empty() {
            return Err(ResolveError::NotAsBefore(others));
        }
        // When it was written is not known any more.
        let may_expire = |name: &&VariableName| {
            let limit = |binding: &Binding| binding.max_age.is_some() && binding.on_expired == OnExpired::Refuse;
            bindings.get(*name).is_some_and(limit)
        };
        let expired: Vec<_> = grant.names().iter().chain(grant.parts()).filter(may_expire).cloned().collect();
        if expired.is_empty() { Ok(Self { values, parts: Vec::new() }) } else { Err(ResolveError::Expired(expired)) }
    }

    /// The values to inject, sorted by name.
    #[must_use]
    pub fn values(&self) -> &[Value] {
        &self.values
    }

    /// Wipes the values and keeps what the audit record of the release lists: each value, and the parts that templates
    /// were made of.
    #[must_use]
    pub fn into_notes(self) -> Vec<SecretNote> {
        self.values.into_iter().map(|value| value.note).chain(self.parts).collect()
    }
}

/// Fetches everything that `permit` allows.
///
/// # Errors
/// The first store that fails; whatever is missing, expired, doubled or not covered by a grant.
pub fn resolve(
    permit: Permit<'_>,
    open: &mut OpenStore<'_>,
    deadline: Instant,
    now: SystemTime,
) -> Result<Resolved, Error> {
    let grant = permit.into_grant();
    let (mut fetched, bundles) = fetch_all(&grant, open, deadline)?;
    refuse_expired(&fetched, now)?;
    let mut values = Vec::with_capacity(grant.names().len());
    let mut missing = Vec::new();
    let bindings: Vec<_> = grant.names().iter().filter_map(|name| grant.policy().secrets.get_key_value(name)).collect();
    // Templates first, while every part is still in the map.
    let mut rendered = BTreeMap::new();
    for (name, binding) in &bindings {
        if let Source::Template(template) = &binding.source
            && let Some(had) = render(name, binding, template, &fetched)?
        {
            rendered.insert(*name, had);
        }
    }
    for (name, binding) in bindings {
        match rendered.remove(name).or_else(|| fetched.remove(name)) {
            Some(had) => values.push(Value { name: name.clone(), secret: had.secret, note: had.note }),
            None if binding.required => missing.push((name.clone(), place(binding))),
            // Absent, and that is fine.
            None => {}
        }
    }
    take_bundles(&grant, bundles, &mut values)?;
    for name in grant.expected_of_bundles() {
        if !values.iter().any(|value| value.name == *name) {
            missing.push((name.clone(), "in no bundle".into()));
        }
    }
    if !missing.is_empty() {
        let hint = missing.first().and_then(|(name, _)| how_to_supply(grant.policy(), name));
        return Err(ResolveError::Missing { missing, hint }.into());
    }
    values.sort_by(|a, b| a.name.cmp(&b.name));
    let parts = grant.parts().iter().filter_map(|part| fetched.remove(part));
    let parts = parts.map(|had| SecretNote { is_withheld: true, ..had.note }).collect();
    Ok(Resolved { values, parts })
}

/// What a permit lets be fetched of one store, for who fetches before [`resolve`] does. Made only by [`orders`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Order {
    store: StoreName,
    wanted: Vec<Wanted>,
}

impl Order {
    /// The store.
    #[must_use]
    pub fn store(&self) -> &StoreName {
        &self.store
    }

    /// What is wanted of it, as [`resolve`] will ask.
    #[must_use]
    pub fn wanted(&self) -> &[Wanted] {
        &self.wanted
    }
}

/// What [`resolve`] is going to ask, store by store.
#[must_use]
pub fn orders(permit: &Permit<'_>) -> Vec<Order> {
    let wanted = |order: Vec<(For<'_>, Wanted)>| order.into_iter().map(|(_, wanted)| wanted).collect();
    let by_store = wanted_of(permit.grant()).into_iter();
    by_store.map(|(store, order)| Order { store: store.clone(), wanted: wanted(order) }).collect()
}

type Values<'p> = BTreeMap<&'p VariableName, Had<'p>>;
type Bundles<'p> = Vec<(&'p Bundle, Vec<(ItemName, Fetched)>)>;

/// A value on its way.
struct Had<'p> {
    binding: &'p Binding,
    secret: Secret,
    note: SecretNote,
    written: Option<SystemTime>,
}

/// Who wants an answer.
enum For<'p> {
    Binding(&'p VariableName, &'p Binding),
    Bundle(&'p Bundle),
}

/// All that is wanted, store by store, and for whom.
fn wanted_of<'p>(grant: &Grant<'p>) -> BTreeMap<&'p StoreName, Vec<(For<'p>, Wanted)>> {
    let policy = grant.policy();
    let mut orders: BTreeMap<&StoreName, Vec<(For<'p>, Wanted)>> = BTreeMap::new();
    for name in grant.names().iter().chain(grant.parts()) {
        let Some((name, binding)) = policy.secrets.get_key_value(name) else { continue };
        match &binding.source {
            Source::Item(item) => orders.entry(&item.store).or_default().push((
                For::Binding(name, binding),
                Wanted::Item {
                    item: item.item.clone(),
                    version: item.version,
                    stage: item.stage,
                    plain: binding.plain,
                },
            )),
            Source::Ciphertext { store, ciphertext, context, .. } => orders.entry(store).or_default().push((
                For::Binding(name, binding),
                Wanted::Ciphertext { ciphertext: ciphertext.clone(), context: context.clone() },
            )),
            Source::Template(_) => {}
        }
    }
    if grant.wants_bundles() {
        for bundle in &policy.bundles {
            let wanted = wanted_bundle(policy, bundle);
            orders.entry(&bundle.store).or_default().push((For::Bundle(bundle), wanted));
        }
    }
    orders
}

/// One call for each store, with all that is wanted of it.
fn fetch_all<'p>(
    grant: &Grant<'p>,
    open: &mut OpenStore<'_>,
    deadline: Instant,
) -> Result<(Values<'p>, Bundles<'p>), Error> {
    // Collected at once: names come sorted, and a map made of sorted entries compares each only once.
    let (mut values, mut bundles) = (Vec::with_capacity(grant.names().len()), Bundles::new());
    for (store, order) in wanted_of(grant) {
        let (receivers, wanted): (Vec<_>, Vec<_>) = order.into_iter().unzip();
        let answers = open(store)?.fetch(&wanted, deadline)?;
        for ((receiver, wanted), answer) in receivers.into_iter().zip(&wanted).zip(answers) {
            match (receiver, answer) {
                (For::Binding(name, binding), Answer::Found(found)) => {
                    let note = note(name, store, wanted, &found);
                    let secret = pick(name, found.value, field_of(binding))?;
                    values.push((name, Had { binding, secret, note, written: found.written }));
                }
                (For::Bundle(bundle), Answer::Bundle(items)) => bundles.push((bundle, items)),
                (For::Binding(..) | For::Bundle(_), Answer::Absent | Answer::Bundle(_) | Answer::Found(_)) => {}
            }
        }
    }
    Ok((values.into_iter().collect(), bundles))
}

/// What is wanted for a bundle: of what this policy reads by stage, the current version, and nothing unproven.
pub(crate) fn wanted_bundle(policy: &Policy, bundle: &Bundle) -> Wanted {
    let (mut staged, mut hidden) = (BTreeSet::new(), BTreeSet::new());
    for binding in policy.secrets.values() {
        let Source::Item(item) = &binding.source else { continue };
        if item.store != bundle.store {
            continue;
        }
        if item.stage == Some(Stage::Current) {
            staged.insert(item.item.clone());
        }
        if binding.rotate.as_ref().is_some_and(|rotation| rotation.pending_separate) {
            hidden.extend(apart_of(&item.item));
        }
    }
    let Bundle { path, recursive, plain, .. } = bundle;
    Wanted::Bundle { path: path.clone(), recursive: *recursive, plain: *plain, staged, hidden }
}

fn field_of(binding: &Binding) -> Option<&JsonPointer> {
    match &binding.source {
        Source::Item(item) => item.field.as_ref(),
        Source::Ciphertext { field, .. } => field.as_ref(),
        Source::Template(_) => None,
    }
}

fn note(name: &VariableName, store: &StoreName, wanted: &Wanted, found: &Fetched) -> SecretNote {
    let item = match wanted {
        Wanted::Item { item, .. } => item.to_string(),
        Wanted::Ciphertext { .. } => String::new(),
        Wanted::Bundle { path, .. } => path.clone(),
    };
    SecretNote {
        name: name.to_string(),
        store: store.to_string(),
        item,
        version: found.version,
        stage: found.stage.map(Stage::word),
        ..SecretNote::default()
    }
}

/// What makes a missing value be there, where that can be said in one line.
fn how_to_supply(policy: &Policy, name: &VariableName) -> Option<String> {
    match &policy.secrets.get(name)?.source {
        Source::Ciphertext { .. } => None,
        Source::Item(item) if item.version.is_some() => None,
        Source::Item(item) => match policy.stores.get(&item.store)? {
            StoreModel::Age(store) if store.format != DocumentFormat::Sealed => Some(format!(
                "`{}` was made by hand: decrypt it, add `{}`, encrypt it again",
                show(&store.path),
                escape(item.item.as_str())
            )),
            _ => {
                let file = policy.files.first().map(|path| format!(" --policy {}", show(path))).unwrap_or_default();
                Some(format!("vouchsafe set {name}{file}"))
            }
        },
        Source::Template(template) => template.references().next().and_then(|part| how_to_supply(policy, part)),
    }
}

/// Where an item should be, in words.
pub(crate) fn place_of(item: &ItemRef) -> String {
    let version = item.version.map(|version| format!(", version {version}")).unwrap_or_default();
    format!("item `{}` of store `{}`{version}", escape(item.item.as_str()), item.store)
}

fn place(binding: &Binding) -> String {
    match &binding.source {
        Source::Item(item) => place_of(item),
        Source::Ciphertext { store, .. } => format!("a ciphertext of store `{store}`"),
        Source::Template(_) => "a template whose parts are absent".into(),
    }
}

/// RFC 6901. A string gives its content, a number or boolean its JSON text; anything else is refused, since a structure has
/// no one way to be a variable.
pub(crate) fn pick(name: &VariableName, value: Secret, field: Option<&JsonPointer>) -> Result<Secret, ResolveError> {
    let Some(JsonPointer(tokens)) = field else { return Ok(value) };
    let fail = |why| ResolveError::Field { name: name.clone(), why };
    // serde_json's error text may cite the value, so it goes no further.
    let json: serde_json::Value = serde_json::from_slice(value.expose()).map_err(|_| fail("the value is not JSON"))?;
    let mut at = &json;
    for token in tokens {
        let next = match at {
            serde_json::Value::Object(members) => members.get(token),
            serde_json::Value::Array(elements) => token.parse::<usize>().ok().and_then(|index| elements.get(index)),
            _ => None,
        };
        at = next.ok_or_else(|| fail("the value has nothing at the pointer"))?;
    }
    match at {
        serde_json::Value::String(text) => Ok(Secret::new(text.clone().into_bytes())),
        serde_json::Value::Number(number) => Ok(Secret::new(number.to_string().into_bytes())),
        serde_json::Value::Bool(truth) => Ok(Secret::new(truth.to_string().into_bytes())),
        serde_json::Value::Null | serde_json::Value::Array(_) | serde_json::Value::Object(_) => {
            Err(fail("what the pointer leads to is not a string, number or boolean"))
        }
    }
}

/// `None` if a part is absent.
fn render<'p>(
    name: &VariableName,
    binding: &'p Binding,
    template: &Template,
    fetched: &Values<'_>,
) -> Result<Option<Had<'p>>, ResolveError> {
    match template.render(|part| fetched.get(part).map(|had| had.secret.expose())) {
        Ok(bytes) => {
            let parts: BTreeSet<_> = template.references().map(ToString::to_string).collect();
            let template = parts.into_iter().collect();
            let note = SecretNote { name: name.to_string(), template, ..SecretNote::default() };
            Ok(Some(Had { binding, secret: Secret::new(bytes), note, written: None }))
        }
        Err(RenderError::Absent(_)) => Ok(None),
        Err(RenderError::NotText(part)) => Err(ResolveError::NotText { name: name.clone(), part }),
    }
}

/// Whether a value written at `written` is older than `max_age` allows. A time in the future is not old.
#[must_use]
pub fn is_expired(written: SystemTime, max_age: Duration, now: SystemTime) -> bool {
    now.duration_since(written).is_ok_and(|age| age > max_age)
}

fn refuse_expired(fetched: &Values<'_>, now: SystemTime) -> Result<(), ResolveError> {
    // A value of unknown age may be older than is allowed, so it is refused too.
    let is_refused = |had: &Had<'_>| {
        had.binding.on_expired == OnExpired::Refuse
            && had.binding.max_age.is_some_and(|max| had.written.is_none_or(|written| is_expired(written, max, now)))
    };
    let expired: Vec<_> = fetched.iter().filter(|(_, had)| is_refused(had)).map(|(name, _)| (*name).clone()).collect();
    if expired.is_empty() { Ok(()) } else { Err(ResolveError::Expired(expired)) }
}

fn take_bundles(grant: &Grant<'_>, bundles: Bundles<'_>, values: &mut Vec<Value>) -> Result<(), ResolveError> {
    let mut denied = Vec::new();
    let mut taken: BTreeSet<VariableName> = grant.policy().secrets.keys().cloned().collect();
    for (bundle, items) in bundles {
        if (items.len() as u64) < u64::from(bundle.at_least) {
            let (store, path) = (bundle.store.clone(), bundle.path.clone());
            return Err(ResolveError::BundleTooSmall { store, path, at_least: bundle.at_least });
        }
        for (item, found) in items {
            let name = variable_of(&item, bundle)?;
            if !grant.asks_bundle_for(&name) {
                continue;
            }
            if grant.policy().child.set.contains_key(&name) || !taken.insert(name.clone()) {
                return Err(ResolveError::Duplicate(name));
            }
            if !grant.covers_from_bundle(&name) {
                denied.push(name);
                continue;
            }
            let wanted = Wanted::Item { item, version: None, stage: None, plain: bundle.plain };
            let note = note(&name, &bundle.store, &wanted, &found);
            values.push(Value { name, secret: found.value, note });
        }
    }
    if denied.is_empty() { Ok(()) } else { Err(ResolveError::BundleDenied(denied)) }
}

/// The variable that an item of a bundle is bound to.
pub(crate) fn variable_of(item: &ItemName, bundle: &Bundle) -> Result<VariableName, ResolveError> {
    let fail = |why| ResolveError::Unbindable { item: item.clone(), why };
    let rest = item.as_str().strip_prefix(&bundle.path).unwrap_or(item.as_str());
    let name = match bundle.names {
        NameStyle::AsWritten => rest.to_owned(),
        NameStyle::LowerKebab => rest.to_lowercase().replace(['_', '.', '/'], "-"),
        NameStyle::LowerSnake => rest.to_lowercase().replace(['-', '.', '/'], "_"),
        NameStyle::UpperSnake => rest.to_uppercase().replace(['-', '.', '/'], "_"),
    };
    let name = VariableName::new(name).map_err(|_| fail("has a name that makes no variable"))?;
    if reserved::is_reserved(&name) {
        return Err(fail("would change how programs load or shells start"));
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::policy::eval::{Caller, Request, Verdict, evaluate};
    use crate::policy::file::{LoadOptions, parse_text};

    fn field(value: &str, tokens: &[&str]) -> Result<Vec<u8>, ResolveError> {
        let pointer = JsonPointer(tokens.iter().map(ToString::to_string).collect());
        let name = VariableName::new("A").unwrap();
        pick(&name, Secret::new(value.as_bytes().to_vec()), Some(&pointer)).map(|secret| secret.expose().to_vec())
    }

    #[test]
    fn a_field_is_text_whatever_its_json_type() {
        let json = r#"{"password":"hunter2","port":5432,"tls":true,"a/b":{"c":["x","y"]},"none":null}"#;
        assert_eq!(field(json, &["password"]).unwrap(), b"hunter2");
        assert_eq!(field(json, &["port"]).unwrap(), b"5432");
        assert_eq!(field(json, &["tls"]).unwrap(), b"true");
        assert_eq!(field(json, &["a/b", "c", "1"]).unwrap(), b"y");
        assert_eq!(field(r#""whole""#, &[]).unwrap(), b"whole");
        for (value, tokens) in [(json, &["nothing"][..]), (json, &["none"]), (json, &["a/b"]), ("not json", &["x"])] {
            let error = field(value, tokens).unwrap_err();
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn age_counts_from_the_writing() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        assert!(!is_expired(at(900), Duration::from_secs(100), now));
        assert!(is_expired(at(899), Duration::from_secs(100), now));
        assert!(!is_expired(at(2000), Duration::from_secs(100), now));
    }

    #[test]
    fn a_value_of_unknown_age_is_refused_where_age_is() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        let name = VariableName::new("A").unwrap();
        let limit = Some(Duration::from_secs(100));
        for (max_age, on_expired, written, is_refused) in [
            (limit, OnExpired::Refuse, None, true),
            (limit, OnExpired::Refuse, Some(now), false),
            (limit, OnExpired::Refuse, Some(SystemTime::UNIX_EPOCH), true),
            (limit, OnExpired::Warn, None, false),
            (None, OnExpired::Refuse, None, false),
        ] {
            let source = Source::Template(Template::parse("${B}").unwrap());
            let binding = Binding {
                source,
                inject: true,
                required: true,
                reserved: false,
                plain: false,
                max_age,
                on_expired,
                rotate: None,
            };
            let secret = Secret::new(b"x".to_vec());
            let had = Had { binding: &binding, secret, note: SecretNote::default(), written };
            let refused = refuse_expired(&BTreeMap::from([(&name, had)]), now).is_err();
            assert_eq!(refused, is_refused, "{max_age:?} {written:?}");
        }
    }

    /// What ran before is what is granted, or nothing.
    #[test]
    fn what_was_before_is_given_again_only_as_it_is_granted() {
        let head = "version = 1\nenvironment = \"prod\"\nstore = \"s\"\n[stores.s]\ntype = \"ssm\"\nprefix = \"/p/\"\n";
        let grants = "[[grants]]\nsecrets = [\"*\"]\nto = \"anyone\"\n";
        let given = |rest: &str, names: &[&str]| {
            let policy =
                parse_text(&format!("{head}{rest}{grants}"), Path::new("p.toml"), &LoadOptions::default()).unwrap();
            let caller = Caller { uid: 1, user: None, groups: Vec::new() };
            let request = Request { caller, command: None, only: None, claimed: false };
            let Verdict::Granted(grant) = evaluate(&policy, &request) else { panic!("denied") };
            let value = |name: &&str| Value {
                name: VariableName::new(*name).unwrap(),
                secret: Secret::new(b"x".to_vec()),
                note: SecretNote::default(),
            };
            let resolved = Resolved::of_before(&grant, names.iter().map(value).collect());
            resolved.map(|resolved| resolved.values().len()).map_err(|error| error.to_string())
        };
        let others = |names: &str| Err(format!("what is granted are not the secrets of before any more: {names}"));
        let two = "[secrets]\nA = {}\nB = { required = false }\nC = { inject = false }\n";
        assert_eq!(given(two, &["A", "B"]), Ok(2));
        assert_eq!(given(two, &["A"]), Ok(1), "it was absent then, and may be");
        assert_eq!(given(two, &["B"]), others("`A`"));
        assert_eq!(given(two, &["A", "B", "C", "D"]), others("`C`, `D`"));
        let bundle = "[secrets]\nA = {}\nC = { inject = false }\n[[bundles]]\npath = \"b\"\n";
        assert_eq!(given(bundle, &["A", "FROM_BUNDLE"]), Ok(2));
        assert_eq!(given(bundle, &["A", "C"]), others("`C`"));
        let old = "[secrets]\nA = { max_age = \"90d\", on_expired = \"refuse\" }\n";
        assert!(given(old, &["A"]).unwrap_err().contains("of unknown age: `A`"));
    }
}
