/* SPDX-License-Identifier: Apache-2.0 */
/* Objects on streams and connections: who sees which, who holds them, and how formats show them. */
#include "proxy/api/filter_state.h"

#include "tests/unit/access_log/fixture.h"

struct counted {
    int holders;
};

static void counted_retain(const void *object)
{
    ((struct counted *)(uintptr_t)object)->holders++;
}

static void counted_release(const void *object)
{
    ((struct counted *)(uintptr_t)object)->holders--;
}

static bool counted_field(const void *object, struct kb_str name,
                          struct kb_filter_state_field *field)
{
    (void)object;
    if (kb_str_eq(name, KB_STR("below"))) {
        *field = (struct kb_filter_state_field){.number = true, .value = -7};
        return true;
    }
    if (kb_str_eq(name, KB_STR("name"))) {
        *field = (struct kb_filter_state_field){.text = KB_STR("abc")};
        return true;
    }
    return false;
}

static const struct kb_filter_state_type counted_type = {
    .name = "counted",
    .field = counted_field,
    .retain = counted_retain,
    .release = counted_release,
};

static const struct kb_str value = {"va\"lue", 6};
static const struct kb_str other = {"other", 5};

static struct kb_filter_state_item string_item(const char *key, const struct kb_str *text)
{
    return (struct kb_filter_state_item){.key = kb_filter_state_key(kb_str_from_cstr(key)),
                                         .type = &kb_filter_state_string,
                                         .object = text};
}

static void test_equal_names_are_one_key(void **state)
{
    char copy[] = "a.key";

    (void)state;
    assert_ptr_equal(kb_filter_state_key(KB_STR("a.key")),
                     kb_filter_state_key(kb_str_from_cstr(copy)));
    assert_ptr_not_equal(kb_filter_state_key(KB_STR("a.key")), kb_filter_state_key(KB_STR("a.ke")));
    assert_true(
        kb_str_eq(kb_filter_state_key_name(kb_filter_state_key(KB_STR("a.key"))), KB_STR("a.key")));
}

static void test_the_stream_hides_its_connection(void **state)
{
    struct fixture f;
    struct kb_filter_state_item on_connection = string_item("k", &other);
    struct kb_filter_state_item on_stream = string_item("k", &value);

    (void)state;
    fixture_init(&f);
    assert_null(kb_filter_state_find(&f.info, on_stream.key));
    assert_int_equal(kb_filter_state_put_connection(&f.connection, &on_connection), 0);
    assert_ptr_equal(kb_filter_state_find(&f.info, on_stream.key)->object, &other);
    assert_int_equal(kb_filter_state_put_stream(&f.info, &f.arena, &on_stream), 0);
    assert_ptr_equal(kb_filter_state_find(&f.info, on_stream.key)->object, &value);
    kb_filter_state_dispose(&f.info.filter_state, &f.arena);
    assert_ptr_equal(kb_filter_state_find(&f.info, on_stream.key)->object, &other);
    kb_filter_state_dispose(&f.connection.filter_state, NULL);
    assert_null(kb_filter_state_find(&f.info, on_stream.key));
    fixture_dispose(&f);
}

static void test_objects_are_held_once(void **state)
{
    struct fixture f;
    struct counted first = {0}, second = {0};
    struct kb_filter_state_item item = {
        .key = kb_filter_state_key(KB_STR("c")), .type = &counted_type, .object = &first};
    struct kb_filter_state_item *list = NULL;

    (void)state;
    fixture_init(&f);
    assert_int_equal(kb_filter_state_put(&list, NULL, &item), 0);
    assert_int_equal(first.holders, 1);
    item.object = &second;
    item.read_only = true;
    assert_int_equal(kb_filter_state_put(&list, NULL, &item), 0);
    assert_int_equal(first.holders, 0);
    assert_int_equal(second.holders, 1);
    item.object = &first;
    assert_int_equal(kb_filter_state_put(&list, NULL, &item), KB_EEXISTS);
    assert_int_equal(first.holders, 0);
    kb_filter_state_dispose(&list, NULL);
    assert_int_equal(second.holders, 0);
    assert_null(list);
    fixture_dispose(&f);
}

/* As Envoy 1.40 shows an object of the factory envoy.string. */
static void test_forms_of_a_string(void **state)
{
    struct fixture f;
    struct kb_filter_state_item item = string_item("k", &value);

    (void)state;
    fixture_init(&f);
    assert_int_equal(kb_filter_state_put_stream(&f.info, &f.arena, &item), 0);
    fixture_expect(&f, "%FILTER_STATE(k)%", "\"va\\\"lue\"");
    fixture_expect(&f, "%FILTER_STATE(k:TYPED)%", "\"va\\\"lue\"");
    fixture_expect(&f, "%FILTER_STATE(k:PLAIN)%", "va\"lue");
    fixture_expect(&f, "%FILTER_STATE(k:PLAIN):3%", "va\"");
    fixture_expect(&f, "%FILTER_STATE(k:TYPED):3%", "\"va");
    fixture_expect(&f, "%FILTER_STATE(k:FIELD:x)%", "-");
    fixture_expect(&f, "%FILTER_STATE(no)%", "-");
    fixture_expect(&f, "%UPSTREAM_FILTER_STATE(k)%", "-");
    kb_filter_state_dispose(&f.info.filter_state, &f.arena);
    fixture_dispose(&f);
}

static void test_forms_of_fields(void **state)
{
    struct fixture f;
    struct counted object = {0};
    struct kb_filter_state_item item = {
        .key = kb_filter_state_key(KB_STR("c")), .type = &counted_type, .object = &object};

    (void)state;
    fixture_init(&f);
    assert_int_equal(kb_filter_state_put(&f.info.upstream.filter_state, &f.arena, &item), 0);
    fixture_expect(&f, "%UPSTREAM_FILTER_STATE(c:FIELD:below)%", "-7");
    fixture_expect(&f, "%UPSTREAM_FILTER_STATE(c:FIELD:name)%", "abc");
    fixture_expect(&f, "%UPSTREAM_FILTER_STATE(c:FIELD:no)%", "-");
    fixture_expect(&f, "%UPSTREAM_FILTER_STATE(c:PLAIN)%", "-");
    fixture_expect(&f, "%FILTER_STATE(c:FIELD:name)%", "-");
    kb_filter_state_dispose(&f.info.upstream.filter_state, &f.arena);
    assert_int_equal(object.holders, 0);
    fixture_dispose(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_equal_names_are_one_key),
        cmocka_unit_test(test_the_stream_hides_its_connection),
        cmocka_unit_test(test_objects_are_held_once),
        cmocka_unit_test(test_forms_of_a_string),
        cmocka_unit_test(test_forms_of_fields),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
